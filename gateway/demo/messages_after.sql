-- The messages of session $1 since the time $2, oldest first. Those of that very moment are among them: the page tells
-- them apart by their ids.
select coalesce(json_agg(missed order by missed.created_at, missed.id), '[]')
  from (
    select m.id, m.session_id, m.role, m.content, m.model, m.metadata, m.created_at
      from public.chat_messages m
     where m.session_id = $1 and m.created_at >= $2::text::timestamptz
     order by m.created_at, m.id
     limit 1000
  ) missed
