-- The last messages of session $1, oldest first.
select coalesce(json_agg(latest order by latest.created_at, latest.id), '[]')
  from (
    select m.id, m.session_id, m.role, m.content, m.model, m.metadata, m.created_at
      from public.chat_messages m
     where m.session_id = $1
     order by m.created_at desc, m.id desc
     limit 500
  ) latest
