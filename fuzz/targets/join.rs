//! The payload of a join: bindings, their ids and echoes, what they ask for and what is said when they are wrong.
#![no_main]

use std::collections::HashSet;

use fuzz::json;
use libfuzzer_sys::fuzz_target;
use protocol::{
    Binding, MAX_BINDINGS, Version, assign_ids, decode_text, describe_params, join_reply,
    parse_filter, parse_join, parse_join_to,
};
use serde_json::value::RawValue;

fuzz_target!(|payload: &str| {
    old_style(payload);
    let frame = format!(r#"["1","1","realtime:room","phx_join",{payload}]"#);
    let Ok(message) = decode_text(Version::V2, &frame) else {
        return;
    };
    let join = parse_join(&message.payload);
    let payload = message.payload.get();
    let texts = [
        &join.access_token,
        &join.user_token,
        &join.config.presence.key,
    ];
    assert!(
        texts
            .into_iter()
            .flatten()
            .all(|text| text.len() <= payload.len())
    );
    assert!(join.token("of the connect").len() <= payload.len().max(14));
    let told: HashSet<_> = join.invalid.iter().collect();
    assert_eq!(
        told.len(),
        join.invalid.len(),
        "nothing is complained about twice"
    );
    assert!(
        !format!("{join:?}").contains("access_token: Some(\"ey"),
        "no token is shown"
    );

    let bindings = &join.config.bindings;
    assert!(bindings.len() <= MAX_BINDINGS);
    let ids = assign_ids(bindings);
    assert!(ids.iter().all(|id| (1..1 << 31).contains(id)));
    assert_eq!(
        ids.iter().collect::<HashSet<_>>().len(),
        bindings.len(),
        "{ids:?}"
    );
    let pairs: Vec<(&Binding, u64)> = bindings.iter().zip(ids.iter().copied()).collect();
    let reply = join_reply(&pairs);
    assert!(reply.len() <= payload.len() + 20 * bindings.len() + 64);
    let echoed = json::members(&reply)
        .and_then(|members| json::members(members[1].1))
        .and_then(|response| json::items(response[0].1))
        .unwrap_or_else(|| panic!("no reply: {reply:?}"));
    assert_eq!(echoed.len(), bindings.len());
    for ((binding, id), echo) in pairs.into_iter().zip(echoed) {
        echoes(binding, id, echo);
        asks(binding);
    }
});

/// Clients from before 2022 name in the topic what they want to hear of.
fn old_style(sub_topic: &str) {
    let nothing = RawValue::from_string("{}".to_owned()).expect("an object");
    let config = parse_join_to(sub_topic, &nothing).config;
    assert_eq!(config.bare, !config.bindings.is_empty());
    if let [binding] = config.bindings.as_slice() {
        let fields = [&binding.schema, &binding.table, &binding.filter];
        let named: Vec<&str> = fields
            .into_iter()
            .filter_map(|field| field.as_text())
            .collect();
        assert_eq!(named.join(":"), sub_topic);
        echoes(binding, 1, &binding.echo(1));
        asks(binding);
    }
}

/// Every member as it was sent, in its order, and the id.
fn echoes(binding: &Binding, id: u64, echo: &str) {
    let values = |text| {
        let members = json::members(text).unwrap_or_else(|| panic!("no object: {text:?}"));
        let names = members.into_iter().map(|(name, value)| {
            let name: String = serde_json::from_str(name).expect("a name");
            (name, value.to_owned())
        });
        names.collect::<Vec<_>>()
    };
    let mut sent = values(binding.raw.get());
    sent.retain(|(name, _)| name != "id");
    sent.push(("id".to_owned(), id.to_string()));
    assert_eq!(values(echo), sent);
    // What a client sends when it comes back with what it got.
    assert_eq!(rejoined(echo).id(), binding.id());
}

fn rejoined(echo: &str) -> Binding {
    let frame = format!(r#"[null,null,"","",{{"config":{{"postgres_changes":[{echo}]}}}}]"#);
    let message = decode_text(Version::V2, &frame).expect("what we write");
    let mut bindings = parse_join(&message.payload).config.bindings;
    assert_eq!(bindings.len(), 1);
    bindings.swap_remove(0)
}

fn asks(binding: &Binding) {
    let size = binding.raw.get().len();
    match binding.target() {
        Ok(target) => {
            let filter = binding.filter.as_text().unwrap_or_default();
            assert_eq!(parse_filter(filter), Ok(target.filters.clone()));
            let select = target.select.as_deref();
            assert!(select.is_none_or(|columns| !columns.is_empty()));
            let shown = describe_params(
                target.event,
                Some(&target.schema),
                Some(&target.table),
                &target.filters,
                select,
            );
            // A character of two bytes that cannot be shown takes six, and a condition has three quoted parts.
            assert!(shown.len() <= 8 * size + 256, "{} of {size}", shown.len());
        }
        Err(refusal) => {
            let told = refusal.to_string();
            assert!(told.len() <= 8 * size + 256, "{} of {size}", told.len());
        }
    }
}
