//! One person's socket, with a channel for each filter in each world, and what came over it.

use std::collections::HashMap;

use protocol::Version;
use serde_json::{Value, json};

use super::{
    chance::Chance,
    people::Person,
    world::{FILTERS, World},
};
use crate::support::{Client, Incoming, TestGateway};

pub(super) struct Listener {
    client: Client,
    markers: String,
    pub(super) listening: Vec<Listening>,
    by_topic: HashMap<String, usize>,
}

/// One channel with one binding.
pub(super) struct Listening {
    /// Places in the lists of worlds and filters.
    pub(super) world: usize,
    pub(super) filter: usize,
    pub(super) select: Option<Vec<&'static str>>,
    pub(super) state: State,
    pub(super) got: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Asked,
    Live,
    /// Refused, or ended, because the person may not see these rows.
    Denied(String),
    /// A column that the person may not read.
    Wrong(String),
}

impl Listening {
    /// The columns that the binding names.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        let selected = self.select.iter().flatten().copied();
        selected.chain(FILTERS[self.filter].2)
    }

    fn binding(&self, worlds: &[World]) -> Value {
        let mut binding = json!({"event": "*", "schema": worlds[self.world].name, "table": "t"});
        if let Some(filter) = FILTERS[self.filter].0 {
            binding["filter"] = filter.into();
        }
        if let Some(select) = &self.select {
            binding["select"] = select.clone().into();
        }
        binding
    }
}

impl Listener {
    pub(super) async fn connect(
        gateway: &TestGateway,
        person: &Person,
        worlds: usize,
        chance: &mut Chance,
    ) -> Listener {
        let version = chance.pick(&[Version::V1, Version::V2, Version::V2]);
        let mut client = Client::connect(gateway, version, &person.token()).await;
        let markers = json!([{"event": "INSERT", "schema": "public", "table": "markers"}]);
        let channel = client.subscribe("markers", markers).await;
        let mut listening = Vec::new();
        for world in 0..worlds {
            for filter in 0..FILTERS.len() {
                listening.push(Listening {
                    world,
                    filter,
                    select: chance
                        .percent(20)
                        .then(|| chance.some(&["id", "label", "n", "gen"], 50)),
                    state: State::Wrong("not joined yet".into()),
                    got: Vec::new(),
                });
            }
        }
        Listener {
            client,
            markers: channel.topic,
            listening,
            by_topic: HashMap::new(),
        }
    }

    /// Asks for everything that is not there.
    pub(super) async fn join(&mut self, worlds: &[World]) {
        for (place, listening) in self.listening.iter_mut().enumerate() {
            if listening.state != State::Live {
                let config = json!({"postgres_changes": [listening.binding(worlds)], "presence": {"enabled": false}});
                let (channel, _) = self
                    .client
                    .begin_join(&format!("c{place}"), json!({"config": config}))
                    .await;
                listening.state = State::Asked;
                self.by_topic.insert(channel.topic, place);
            }
        }
        while self
            .listening
            .iter()
            .any(|listening| listening.state == State::Asked)
        {
            self.take().await;
        }
    }

    /// Reads what comes before this marker.
    pub(super) async fn until(&mut self, marker: i32) {
        while self.take().await != Some(marker) {}
    }

    /// Takes one message. Returns the marker if it is one.
    async fn take(&mut self) -> Option<i32> {
        let Incoming::Message(mut message) = self.client.next().await else {
            panic!("the socket ended");
        };
        if message.topic == self.markers {
            return message.payload["data"]["record"]["marker"]
                .as_i64()
                .and_then(|marker| i32::try_from(marker).ok());
        }
        let place = *self.by_topic.get(&message.topic)?;
        let listening = &mut self.listening[place];
        let payload = &mut message.payload;
        match &*message.event {
            "postgres_changes" => listening.got.push(payload["data"].take()),
            "phx_reply" if payload["status"] == "error" => {
                listening.state = State::Denied(payload["response"]["reason"].to_string());
            }
            "system" if payload["status"] == "ok" => listening.state = State::Live,
            "system" => listening.state = State::Wrong(payload["message"].to_string()),
            "phx_close" if listening.state != State::Asked => {
                listening.state = State::Denied("ended".into());
            }
            _ => {}
        }
        None
    }
}
