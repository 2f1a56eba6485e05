//! What real clients and the gateway said to each other, from the files in `tests/fixtures`: each frame of a client is
//! understood, and each frame that a client understood is written again to the byte.

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use protocol::{
    ChangeData, ClientFrame, ClientMessage, Encoding, Join, PresencePush, Version, assign_ids,
    decode_binary, decode_text, empty_error_reply, encode, encode_change, encode_user_broadcast,
    error_reply, event, join_reply, ok_reply, parse_access_token, parse_join, presence, sub_topic,
    system,
};
use serde_json::{Value, value::RawValue};

/// Of one recording: the version of its socket, and what was said over it.
struct Tour {
    version: Version,
    frames: Vec<Frame>,
}

enum Frame {
    FromClient(Message),
    FromServer(Message),
}

enum Message {
    Text(String),
    Binary(Vec<u8>),
}

fn tour(client: &str, serializer: u8) -> Tour {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(client)
        .join(format!("serializer-{serializer}.jsonl"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let first = lines.next().expect("a request");
    let request = first["request"].as_str().expect("a request");
    let (path, query) = request.split_once('?').expect("a query");
    assert_eq!(path, "/realtime/v1/websocket", "{client}");
    let vsn = query.split('&').find_map(|pair| pair.strip_prefix("vsn="));
    let version = Version::parse(vsn.unwrap_or("1.0.0")).expect("a version");
    let wanted = [Version::V1, Version::V2][usize::from(serializer) - 1];
    assert_eq!(version, wanted, "{client}: {query}");
    Tour {
        version,
        frames: lines.map(|line| frame(&line)).collect(),
    }
}

fn frame(line: &Value) -> Frame {
    let message = match (line["text"].as_str(), line["hex"].as_str()) {
        (Some(text), None) => Message::Text(text.to_owned()),
        (None, Some(hex)) => Message::Binary(unhex(hex)),
        _ => panic!("neither text nor bytes: {line}"),
    };
    match line["from"].as_str() {
        Some("client") => Frame::FromClient(message),
        Some("server") => Frame::FromServer(message),
        _ => panic!("from nobody: {line}"),
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

/// What a client's frame says, in words that are the same for all versions.
fn meaning(version: Version, frame: &Message) -> String {
    let message = match frame {
        Message::Text(text) => decode_text(version, text).expect("a message"),
        Message::Binary(bytes) => {
            match decode_binary(version, Bytes::copy_from_slice(bytes)).expect("a message") {
                ClientFrame::Message(message) => message,
                ClientFrame::Broadcast(broadcast) => {
                    let payload = match broadcast.encoding {
                        Encoding::Json => String::from_utf8_lossy(&broadcast.payload).into_owned(),
                        Encoding::Binary => format!("{:02x?}", broadcast.payload),
                    };
                    let topic = sub_topic(&broadcast.topic).expect("a channel");
                    assert!(broadcast.metadata.is_none());
                    assert!(!broadcast.join_ref.is_null() && !broadcast.reference.is_null());
                    return format!("broadcast {topic} {} {payload}", broadcast.event);
                }
            }
        }
    };
    let topic = sub_topic(&message.topic).unwrap_or(&message.topic);
    let what = match message.event.as_str() {
        event::JOIN => described(&parse_join(&message.payload)),
        event::ACCESS_TOKEN => {
            assert!(parse_access_token(&message.payload).is_some_and(|token| is_token(&token)));
            String::new()
        }
        event::PRESENCE => match presence::parse(&message.payload) {
            PresencePush::Track(payload) => format!("track {payload}"),
            PresencePush::Untrack => "untrack".to_owned(),
            other => panic!("{other:?}"),
        },
        event::BROADCAST => {
            let payload: BTreeMap<String, Box<RawValue>> = members(message.payload.get());
            let event: String = serde_json::from_str(payload["event"].get()).expect("an event");
            format!("{event} {}", payload["payload"])
        }
        event::HEARTBEAT | event::LEAVE => String::new(),
        other => panic!("no client sends {other}"),
    };
    format!("{} {topic} {what}", message.event)
        .trim_end()
        .to_owned()
}

fn described(join: &Join) -> String {
    assert!(join.invalid.is_empty(), "{:?}", join.invalid);
    assert!(is_token(join.token("")) && !join.config.private && !join.config.bare);
    let config = &join.config;
    let mut words = vec![format!("presence={:?}", config.presence.enabled)];
    words.extend(config.presence.key.as_ref().map(|key| format!("key={key}")));
    words.extend(config.broadcast.ack.then(|| "ack".to_owned()));
    words.extend(config.broadcast.self_send.then(|| "self".to_owned()));
    for binding in &config.bindings {
        let target = binding.target().expect("a good binding");
        let mut text = format!("{} {}.{}", target.event.name(), target.schema, target.table);
        if let Some(filter) = binding.filter.as_text() {
            // The last two digits tell one session from the other.
            text.push_str(&format!(" session {}", &filter[filter.len() - 2..]));
            assert_eq!(target.filters.len(), 1);
        }
        if let Some(columns) = target.select {
            text.push_str(&format!(" only {}", columns.join(",")));
        }
        words.push(format!("({text})"));
    }
    words.join(" ")
}

/// The recorder replaces tokens by one that is good for nothing.
fn is_token(token: &str) -> bool {
    token.starts_with("eyJ") && token.split('.').count() == 3
}

fn members<'a, V: serde::Deserialize<'a>>(json: &'a str) -> BTreeMap<String, V> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// In what clients differ on the same tour.
#[derive(Clone, Copy)]
struct Habits {
    /// A channel says whether it wants to hear of presence.
    says_presence: bool,
    /// A binding can name columns.
    selects: bool,
    /// The token is pushed after each join, too.
    repeats_tokens: bool,
    /// A heartbeat is the first thing that is said; it is the only one, as the tour is short.
    beats_first: bool,
}

const NEWER_JS: Habits = Habits {
    says_presence: true,
    selects: true,
    repeats_tokens: false,
    beats_first: false,
};

const OLDER_JS: Habits = Habits {
    says_presence: false,
    repeats_tokens: true,
    ..NEWER_JS
};

const NEWER_PYTHON: Habits = Habits {
    selects: false,
    beats_first: true,
    ..NEWER_JS
};

const OLDER_PYTHON: Habits = Habits {
    says_presence: false,
    ..NEWER_PYTHON
};

const TOURS: [(&str, u8, Habits); 7] = [
    ("supabase-js-2.119", 2, NEWER_JS),
    ("supabase-js-2.119", 1, NEWER_JS),
    ("supabase-js-2.95", 2, NEWER_JS),
    ("supabase-js-2.95", 1, NEWER_JS),
    ("supabase-js-2.49", 1, OLDER_JS),
    ("realtime-py-2.34", 1, NEWER_PYTHON),
    ("realtime-py-2.7", 1, OLDER_PYTHON),
];

/// What the tour's client says, in order.
fn itinerary(version: Version, habits: Habits) -> Vec<String> {
    let presence = |wanted| habits.says_presence.then_some(wanted);
    let heartbeat = "heartbeat phoenix".to_owned();
    let (first, later) = if habits.beats_first {
        (Some(heartbeat), None)
    } else {
        (None, Some(heartbeat))
    };
    let only = if habits.selects { " only content" } else { "" };
    let foreign = "messages:00000000-0000-4000-8000-0000000000b1";
    let repeated = |topic: &str| {
        habits
            .repeats_tokens
            .then(|| format!("access_token {topic}"))
    };
    let mut said = Vec::new();
    said.extend(first);
    said.push(format!(
        "phx_join tour presence={:?} key=ada ack self (* public.chat_messages session a1) (INSERT public.chat_messages{only})",
        presence(true)
    ));
    said.extend(repeated("tour"));
    said.push(r#"presence tour track {"name":"Ada","mood":{"since":[1,null]}}"#.to_owned());
    said.push("presence tour untrack".to_owned());
    said.push(r#"broadcast tour cursor {"at":[1.5,null],"text":"é\"\\"}"#.to_owned());
    if version == Version::V2 {
        said.push(r#"broadcast tour bytes b"\0\x7f\x80\xff""#.to_owned());
    }
    said.push("access_token tour".to_owned());
    said.extend(later);
    said.push(format!(
        "phx_join {foreign} presence={:?} (INSERT public.chat_messages session b1) (DELETE public.chat_messages session b1)",
        presence(false)
    ));
    // The older SDK sees the refusal, and pushes the token nevertheless.
    said.extend(repeated("tour"));
    said.push(format!("phx_leave {foreign}"));
    said.push("phx_leave tour".to_owned());
    said
}

#[test]
fn each_frame_of_a_client_is_understood() {
    for (client, serializer, habits) in TOURS {
        let tour = tour(client, serializer);
        let said: Vec<String> = tour
            .frames
            .iter()
            .filter_map(|frame| match frame {
                Frame::FromClient(message) => Some(meaning(tour.version, message)),
                Frame::FromServer(_) => None,
            })
            .collect();
        let wanted = itinerary(tour.version, habits);
        assert_eq!(said, wanted, "{client}, serializer {serializer}");
    }
}

#[test]
fn each_frame_that_a_client_understood_is_written_again_to_the_byte() {
    for (client, serializer, _) in TOURS {
        let tour = tour(client, serializer);
        let mut joins = Vec::new();
        let mut events: BTreeMap<String, usize> = BTreeMap::new();
        for frame in &tour.frames {
            match frame {
                Frame::FromClient(Message::Text(text)) => {
                    let message = decode_text(tour.version, text).expect("a message");
                    if message.event == event::JOIN {
                        joins.push(message);
                    }
                }
                Frame::FromClient(Message::Binary(_)) => {}
                Frame::FromServer(Message::Binary(bytes)) => {
                    assert_eq!(&user_broadcast_again(bytes), bytes, "{client}");
                    *events.entry(event::BROADCAST.to_owned()).or_default() += 1;
                }
                Frame::FromServer(Message::Text(text)) => {
                    let (event, again) = again(tour.version, text, &joins);
                    assert_eq!(&again, text, "{client}, serializer {serializer}");
                    *events.entry(event).or_default() += 1;
                }
            }
        }
        // Nothing was left out: the tour shows one of everything. Not every client stays for the last `phx_close`.
        for wanted in [
            event::REPLY,
            event::SYSTEM,
            event::POSTGRES_CHANGES,
            event::BROADCAST,
            event::PRESENCE_STATE,
            event::PRESENCE_DIFF,
        ] {
            let times = events.get(wanted).copied().unwrap_or_default();
            assert!(times > 0, "{client}, {serializer}: {wanted} in {events:?}");
        }
    }
}

/// The event of the frame, and the frame as it is written from what it says.
fn again(version: Version, text: &str, joins: &[ClientMessage]) -> (String, String) {
    // Both directions have the same form.
    let said = decode_text(version, text).expect("a message");
    let payload = said.payload.get();
    if said.event == event::POSTGRES_CHANGES {
        return (said.event, change_again(version, &said.topic, payload));
    }
    let payload = match said.event.as_str() {
        event::REPLY => {
            let join = joins
                .iter()
                .find(|join| join.topic == said.topic && join.reference == said.reference);
            reply_again(payload, join)
        }
        event::SYSTEM => system_again(payload),
        event::PRESENCE_STATE => presence::state(metas(payload)),
        event::PRESENCE_DIFF => {
            let sides: BTreeMap<String, &RawValue> = members(payload);
            presence::diff(metas(sides["joins"].get()), metas(sides["leaves"].get()))
        }
        event::CLOSE => "{}".to_owned(),
        // What a client of version 1 has sent goes to the others of version 1 as it came.
        event::BROADCAST => payload.to_owned(),
        other => panic!("the server never says {other}"),
    };
    let frame = encode(
        version,
        &said.join_ref,
        &said.reference,
        &said.topic,
        &said.event,
        &payload,
    );
    (said.event, frame)
}

fn reply_again(payload: &str, join: Option<&ClientMessage>) -> String {
    let reply: Value = serde_json::from_str(payload).expect("a reply");
    let response = &reply["response"];
    match (reply["status"].as_str(), join) {
        (Some("ok"), Some(join)) => {
            let bindings = parse_join(&join.payload).config.bindings;
            // The ids are the gateway's own, so what clients compare is the rest; but they are stable.
            let ids = assign_ids(&bindings);
            join_reply(&bindings.iter().zip(ids).collect::<Vec<_>>())
        }
        (Some("ok"), None) => ok_reply().to_owned(),
        (Some("error"), _) => match response["reason"].as_str() {
            Some(reason) => error_reply(reason),
            None => empty_error_reply().to_owned(),
        },
        _ => panic!("no status: {payload}"),
    }
}

fn system_again(payload: &str) -> String {
    let said: BTreeMap<String, String> = members(payload);
    system(
        said["status"] == "ok",
        &said["extension"],
        &said["message"],
        &said["channel"],
    )
}

/// The metas by their keys. There is one person on the tour, so that their order is that of the frame.
fn metas(payload: &str) -> Vec<(String, Vec<String>)> {
    let people: BTreeMap<String, BTreeMap<String, Vec<&RawValue>>> = members(payload);
    people
        .into_iter()
        .map(|(key, person)| {
            let metas = person["metas"].iter().map(|meta| meta.get().to_owned());
            (key, metas.collect())
        })
        .collect()
}

fn change_again(version: Version, topic: &str, payload: &str) -> String {
    let change: BTreeMap<String, &RawValue> = members(payload);
    let ids: Vec<u64> = serde_json::from_str(change["ids"].get()).expect("ids");
    let data: BTreeMap<String, &RawValue> = members(change["data"].get());
    let text = |name: &str| serde_json::from_str::<String>(data[name].get()).expect("a text");
    let kind = text("type");
    let kind = ["INSERT", "UPDATE", "DELETE"]
        .into_iter()
        .find(|known| *known == kind)
        .expect("a type of change");
    assert_eq!(data["errors"].get(), "null");
    let data = ChangeData {
        schema: &text("schema"),
        table: &text("table"),
        kind,
        commit_timestamp: Some(&text("commit_timestamp")),
        columns: data["columns"].get(),
        record: data.get("record").map(|record| record.get()),
        old_record: data.get("old_record").map(|record| record.get()),
        errors: None,
    };
    encode_change(version, topic, &ids, &data.to_json())
}

fn user_broadcast_again(frame: &[u8]) -> Vec<u8> {
    let &[4, topic, event, metadata, encoding, ref rest @ ..] = frame else {
        panic!("not of kind 4: {frame:?}");
    };
    let (topic, rest) = rest.split_at(usize::from(topic));
    let (event, rest) = rest.split_at(usize::from(event));
    let (metadata, payload) = rest.split_at(usize::from(metadata));
    let text = |bytes| std::str::from_utf8(bytes).expect("text");
    let encoding = [Encoding::Binary, Encoding::Json][usize::from(encoding)];
    let metadata = Some(text(metadata)).filter(|metadata| !metadata.is_empty());
    encode_user_broadcast(text(topic), text(event), metadata, encoding, payload)
        .expect("a short header")
}
