-- Stores a client's broadcast, as the principal: the INSERT policies decide. $1 id, $2 sub-topic, $3 event, $4 the payload as JSON or
-- null, $5 the payload as bytes or null.
insert into realtime.messages (id, topic, event, private, extension, payload, binary_payload)
values ($1, $2, $3, true, 'broadcast', $4::text::jsonb, $5)
