//! Everybody but the SDK: the third program that writes rows, the one who signs tokens, the network that breaks.

use serde_json::{Value, json};
use tokio_postgres::{
    Client,
    types::{Json, ToSql},
};
use uuid::Uuid;

use super::proxy::Proxy;
use crate::support::{
    TestDatabase, TestGateway,
    cluster::connect,
    token::{SECRET, signed_with},
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

const COUNT: &str = "select to_jsonb(count(*)) from public.chat_messages where content = $1";

pub(crate) struct Host {
    /// A superuser's connection: the writer is none of the gateway's users.
    rows: Client,
    secret: String,
    network: Option<Network>,
}

/// A gateway of this test alone, behind a proxy that can cut the line.
struct Network {
    database: TestDatabase,
    gateway: TestGateway,
    proxy: Proxy,
}

impl Host {
    /// A gateway on a database with the ChatTwelve schema. The driver reaches it at [`Host::url`].
    pub(crate) async fn with_gateway() -> Host {
        let database = TestDatabase::new(Some("chattwelve")).await;
        let gateway = TestGateway::start(&database).await;
        let proxy = Proxy::start(gateway.address).await;
        let rows = writer(&database.url).await;
        Host {
            rows,
            secret: SECRET.to_owned(),
            network: Some(Network {
                database,
                gateway,
                proxy,
            }),
        }
    }

    /// For a gateway that runs elsewhere.
    pub(crate) async fn beside(database_url: &str, secret: &str) -> Host {
        Host {
            rows: writer(database_url).await,
            secret: secret.to_owned(),
            network: None,
        }
    }

    /// Where the driver finds the gateway.
    pub(crate) fn url(&self) -> Option<String> {
        let network = self.network.as_ref()?;
        Some(format!("http://{}", network.proxy.address()))
    }

    pub(super) async fn call(&mut self, call: &str, args: &Value) -> Result<Value, String> {
        match call {
            "insert" => {
                let contents: Vec<&str> = texts(&args["contents"])?;
                let rows = self
                    .query(INSERT, &[&uuid(&args["session"])?, &contents])
                    .await?;
                Ok(Value::Array(rows))
            }
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
            "cut" | "mend" | "restart" => self.disturb(call).await,
            other => Err(format!("nobody here knows how to {other}")),
        }
    }

    async fn disturb(&mut self, call: &str) -> Result<Value, String> {
        let network = self.network.as_mut().ok_or("there is no network here")?;
        match call {
            "cut" => network.proxy.cut(),
            "mend" => network.proxy.mend(),
            _ => {
                network.gateway.stop().await;
                network.gateway = TestGateway::start(&network.database).await;
                network.proxy.lead_to(network.gateway.address);
            }
        }
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
