-- Every session, whoever it belongs to; $1 is the one who asks.
select coalesce(json_agg(json_build_object('id', s.id, 'title', s.title, 'owner', s.user_id, 'mine', s.user_id = $1)
                         order by s.created_at, s.id), '[]')
  from public.chat_sessions s
