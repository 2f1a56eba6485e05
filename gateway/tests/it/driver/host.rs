//! Everybody but the SDK: the third program that writes rows, the one who signs tokens, the network that breaks.

use std::net::SocketAddr;

use faultproxy::{Cut, Proxy};
use serde_json::{Value, json};
use tokio_postgres::{
    Client,
    types::{Json, ToSql},
};
use uuid::Uuid;

use crate::support::{
    TestDatabase, TestGateway,
    cluster::connect,
    process::{GatewayProcess, signal},
    token::{SECRET, signed_with},
    wait::wait_for,
};

/// In the order of `$2`, as PostgreSQL stored them.
const INSERT: &str = "
    with wanted as (select * from unnest($2::text[]) with ordinality as wanted (content, place)),
    stored as (
        insert into public.chat_messages (session_id, role, content)
        select $1, 'user', content from wanted order by place
        returning *
    )
    select to_jsonb(stored) from stored";

const UPDATE: &str =
    "update public.chat_messages set content = $2 where id = $1 returning to_jsonb(chat_messages)";

const DELETE: &str = "delete from public.chat_messages where id = any ($1) returning to_jsonb(id)";

/// The whole log, as retention empties it.
const FORGET: &str = "truncate tidings.changes";

const COUNT: &str = "select to_jsonb(count(*)) from public.chat_messages where content = $1";

pub(crate) struct Host {
    /// A superuser's connection: the writer is none of the gateway's users.
    rows: Client,
    secret: String,
    network: Option<Network>,
    /// The process that calls.
    pub(super) driver: Option<u32>,
}

/// A gateway of this test alone, behind a proxy that can cut the line.
struct Network {
    database: TestDatabase,
    gateway: Gateway,
    proxy: Proxy,
}

enum Gateway {
    Here(TestGateway),
    /// One that can be killed, and that has metrics of its own.
    Process {
        environment: Vec<(String, String)>,
        process: Box<GatewayProcess>,
    },
}

impl Host {
    /// A gateway on a database with the ChatTwelve schema. The driver reaches it at [`Host::url`].
    pub(crate) async fn with_gateway() -> Host {
        let database = TestDatabase::new(Some("chattwelve")).await;
        let gateway = Gateway::Here(TestGateway::start(&database).await);
        Host::before(database, gateway).await
    }

    /// The same with the built program, and with these variables.
    pub(crate) async fn with_process(settings: &[(&str, &str)]) -> Host {
        let database = TestDatabase::new(Some("chattwelve")).await;
        let own = [
            ("DATABASE_URL", database.gateway_url.as_str()),
            ("TIDINGS_JWT_SECRET", SECRET),
        ];
        let environment = own
            .iter()
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>();
        let process = start_process(&environment).await;
        let gateway = Gateway::Process {
            environment,
            process,
        };
        Host::before(database, gateway).await
    }

    async fn before(database: TestDatabase, gateway: Gateway) -> Host {
        let proxy = Proxy::start(gateway.address()).await.expect("a proxy");
        let rows = writer(&database.url).await;
        Host {
            rows,
            secret: SECRET.to_owned(),
            network: Some(Network {
                database,
                gateway,
                proxy,
            }),
            driver: None,
        }
    }

    /// For a gateway that runs elsewhere.
    pub(crate) async fn beside(database_url: &str, secret: &str) -> Host {
        Host {
            rows: writer(database_url).await,
            secret: secret.to_owned(),
            network: None,
            driver: None,
        }
    }

    /// Where the driver finds the gateway.
    pub(crate) fn url(&self) -> Option<String> {
        let network = self.network.as_ref()?;
        Some(format!("http://{}", network.proxy.address()))
    }

    pub(super) async fn call(&mut self, call: &str, args: &Value) -> Result<Value, String> {
        match call {
            "insert" => self.insert(args, "contents").await,
            "update" => {
                let content = text(&args["content"])?;
                self.one(UPDATE, &[&uuid(&args["id"])?, &content]).await
            }
            "delete" => {
                let ids = texts(&args["ids"])?
                    .into_iter()
                    .map(|id| uuid(&json!(id)))
                    .collect::<Result<Vec<Uuid>, String>>()?;
                let gone = self.query(DELETE, &[&ids]).await?;
                if gone.len() == ids.len() {
                    Ok(Value::Null)
                } else {
                    Err(format!("{} of {} rows were there", gone.len(), ids.len()))
                }
            }
            "count" => self.one(COUNT, &[&text(&args["content"])?]).await,
            "token" => self.token(args).map(Value::String),
            "forget" => {
                // The gateway remembers what it has just read.
                self.disturb("kill").await?;
                let done = self.rows.batch_execute(FORGET).await;
                done.map_err(|error| format!("{error:?}"))?;
                self.disturb("revive").await
            }
            "asleep" => self.asleep(args).await,
            "closed" => {
                let wanted = args["times"].as_f64().ok_or("times is a number")?;
                self.closed(text(&args["reason"])?, wanted).await
            }
            "cut" | "mend" | "restart" | "kill" | "revive" => self.disturb(call).await,
            other => Err(format!("nobody here knows how to {other}")),
        }
    }

    async fn disturb(&mut self, call: &str) -> Result<Value, String> {
        let network = self.network.as_mut().ok_or("there is no network here")?;
        match call {
            "cut" => network.proxy.cut(Cut::Close),
            "mend" => network.proxy.mend(),
            _ => match (call, &mut network.gateway) {
                ("restart", Gateway::Here(gateway)) => {
                    gateway.stop().await;
                    *gateway = TestGateway::start(&network.database).await;
                    network.proxy.lead_to(gateway.address);
                }
                ("kill", Gateway::Process { process, .. }) => {
                    process.signal("KILL").await;
                    process.ended().await;
                }
                (
                    "revive",
                    Gateway::Process {
                        environment,
                        process,
                    },
                ) => {
                    *process = start_process(environment).await;
                    network.proxy.lead_to(process.address);
                }
                _ => return Err(format!("this gateway is none to {call}")),
            },
        }
        Ok(Value::Null)
    }

    async fn insert(&self, args: &Value, contents: &str) -> Result<Value, String> {
        let contents: Vec<&str> = texts(&args[contents])?;
        let rows = self
            .query(INSERT, &[&uuid(&args["session"])?, &contents])
            .await?;
        Ok(Value::Array(rows))
    }

    /// Stops the calling process, as an operating system does with what is not looked at: it reads nothing, sends nothing,
    /// and no timer of it fires. It is woken up when the gateway has closed its socket for this reason.
    async fn asleep(&self, args: &Value) -> Result<Value, String> {
        let driver = self.driver.ok_or("nobody drives")?;
        signal(driver, "STOP").await;
        let slept = async {
            self.insert(args, "contents").await?;
            self.closed(text(&args["reason"])?, 1.0).await?;
            self.insert(args, "later").await
        };
        let slept = slept.await;
        signal(driver, "CONT").await;
        slept
    }

    /// Waits until the gateway has closed so many sockets for this reason.
    async fn closed(&self, reason: &str, times: f64) -> Result<Value, String> {
        let Some(Network {
            gateway: Gateway::Process { process, .. },
            ..
        }) = &self.network
        else {
            return Err("no gateway here counts for itself".to_owned());
        };
        let series = format!("tidings_connections_closed_total{{reason=\"{reason}\"}}");
        wait_for("a closed socket", || async {
            let closed = process.metric(&series).await;
            if closed >= times {
                Ok(())
            } else {
                Err(format!("{closed} closed"))
            }
        })
        .await;
        Ok(Value::Null)
    }

    /// A token with these claims that is good for `seconds`. No two are the same text.
    fn token(&self, args: &Value) -> Result<String, String> {
        let Value::Object(claims) = args else {
            return Err("claims are an object".to_owned());
        };
        let mut claims = claims.clone();
        let seconds = claims.remove("seconds").and_then(|value| value.as_i64());
        let seconds = seconds.ok_or("a token needs its seconds")?;
        claims.insert(
            "exp".to_owned(),
            json!(gateway::auth::now_unix().saturating_add(seconds)),
        );
        claims.insert("jti".to_owned(), json!(Uuid::new_v4()));
        Ok(signed_with(Value::Object(claims), &self.secret))
    }

    async fn one(&self, statement: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Value, String> {
        let mut rows = self.query(statement, values).await?;
        rows.pop().ok_or_else(|| "there is no such row".to_owned())
    }

    async fn query(
        &self,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Value>, String> {
        let rows = self
            .rows
            .query(statement, values)
            .await
            .map_err(|error| format!("{error:?}"))?;
        Ok(rows
            .iter()
            .map(|row| row.get::<_, Json<Value>>(0).0)
            .collect())
    }
}

impl Gateway {
    fn address(&self) -> SocketAddr {
        match self {
            Gateway::Here(gateway) => gateway.address,
            Gateway::Process { process, .. } => process.address,
        }
    }
}

async fn start_process(environment: &[(String, String)]) -> Box<GatewayProcess> {
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let process = GatewayProcess::start(&environment).await;
    let url = process.url("/readyz");
    wait_for("a gateway that is ready", || async {
        match reqwest::get(&url).await {
            Ok(response) if response.status().is_success() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    Box::new(process)
}

async fn writer(url: &str) -> Client {
    let client = connect(url).await;
    // The rows are compared with what the gateway sends, and that is always in UTC.
    client
        .batch_execute("set timezone = 'UTC'")
        .await
        .expect("a session in UTC");
    client
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("not a text: {value}"))
}

fn texts(value: &Value) -> Result<Vec<&str>, String> {
    let list = value
        .as_array()
        .ok_or_else(|| format!("not a list: {value}"))?;
    list.iter().map(text).collect()
}

fn uuid(value: &Value) -> Result<Uuid, String> {
    text(value)?
        .parse()
        .map_err(|error| format!("{value}: {error}"))
}
