-- More people and chats than schema.sql brings, so that the page looks alive.

insert into public.profiles (id, email, display_name) values
  ('usr_Eve0000000000000000003', 'eve@example.com', 'Eve');

insert into public.chat_sessions (id, user_id, title) values
  ('00000000-0000-4000-8000-0000000000a2', 'usr_Ada0000000000000000001', 'Sailing next weekend'),
  ('00000000-0000-4000-8000-0000000000a3', 'usr_Ada0000000000000000001', 'A name for the cat'),
  ('00000000-0000-4000-8000-0000000000b2', 'usr_Bob0000000000000000002', 'Bread that rises'),
  ('00000000-0000-4000-8000-0000000000c1', 'usr_Eve0000000000000000003', 'Stars tonight');

insert into public.chat_messages (session_id, role, content, model, created_at) values
  ('00000000-0000-4000-8000-0000000000a2', 'user', 'Will there be wind on Saturday?', null, now() - interval '47 minutes'),
  ('00000000-0000-4000-8000-0000000000a2', 'assistant', 'Enough to sail, not enough to worry: four Beaufort from the west, easing off towards the evening.', 'demo-model', now() - interval '46 minutes'),
  ('00000000-0000-4000-8000-0000000000a2', 'user', 'Then we leave at nine.', null, now() - interval '45 minutes'),
  ('00000000-0000-4000-8000-0000000000a3', 'user', 'She is grey, quick, and sleeps on the router.', null, now() - interval '3 hours'),
  ('00000000-0000-4000-8000-0000000000a3', 'assistant', 'Then she has chosen already: call her Packet.', 'demo-model', now() - interval '179 minutes'),
  ('00000000-0000-4000-8000-0000000000b2', 'user', 'My dough does not rise. What now?', null, now() - interval '25 minutes'),
  ('00000000-0000-4000-8000-0000000000b2', 'assistant', 'Give it warmth and an hour more. If nothing happens by then, the yeast is to blame and not you.', 'demo-model', now() - interval '24 minutes'),
  ('00000000-0000-4000-8000-0000000000c1', 'user', 'Which planet is that next to the moon?', null, now() - interval '70 minutes'),
  ('00000000-0000-4000-8000-0000000000c1', 'assistant', 'The bright one that does not twinkle is Jupiter. A pair of binoculars shows four of its moons.', 'demo-model', now() - interval '69 minutes');
