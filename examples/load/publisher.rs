//! A publisher: one connection over which events reach the server, in whichever way it takes them.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls, Statement};

use crate::options::Target;
use crate::token::token;
use crate::{Result, failure};

/// The type of every event.
const TYPE: &str = "load";

/// An event on its way.
pub(crate) struct Draft {
    pub(crate) topic: String,
    pub(crate) payload: String,
}

/// A connection of its own.
pub(crate) enum Publisher {
    /// A session; the events of a batch are one statement, and so one transaction.
    Sql { client: Client, publish: Statement },
    /// `POST /v1/events` of tidings.
    Http {
        connection: Connection,
        uri: Uri,
        token: String,
    },
    /// The payload alone, to a URL made for its topic.
    Post {
        connection: Connection,
        template: String,
    },
    /// A line for each event; nothing is answered.
    Line(TcpStream),
}

impl Publisher {
    pub(crate) async fn connect(target: &Target, secret: Option<&str>) -> Result<Self> {
        Ok(match target {
            Target::Sql(url) => {
                let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
                tokio::spawn(connection);
                let publish = format!(
                    "select count(tidings.publish(topic, '{TYPE}', data::jsonb))
                     from unnest($1::text[], $2::text[]) event (topic, data)"
                );
                let publish = client.prepare(&publish).await?;
                Self::Sql { client, publish }
            }
            Target::Http(uri) => Self::Http {
                connection: Connection::open(uri.clone()).await?,
                uri: uri.clone(),
                token: token(secret.ok_or("http: needs --secret")?, 0)?,
            },
            Target::Post(template) => Self::Post {
                connection: Connection::open(template.replace("{topic}", "").parse()?).await?,
                template: template.clone(),
            },
            Target::Line(address) => {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                Self::Line(socket)
            }
        })
    }

    /// Publishes these, and waits until the server has taken them, where it says so.
    pub(crate) async fn publish(&mut self, drafts: Vec<Draft>) -> Result<()> {
        match self {
            Self::Sql { client, publish } => {
                let (topics, payloads): (Vec<_>, Vec<_>) = drafts
                    .into_iter()
                    .map(|draft| (draft.topic, draft.payload))
                    .unzip();
                client.query_one(&*publish, &[&topics, &payloads]).await?;
            }
            Self::Http {
                connection,
                uri,
                token,
            } => {
                for Draft { topic, payload } in drafts {
                    let body =
                        format!("{{\"topic\":\"{topic}\",\"type\":\"{TYPE}\",\"data\":{payload}}}");
                    let request = request(uri)?
                        .header(header::AUTHORIZATION, format!("Bearer {token}"))
                        .header(header::CONTENT_TYPE, "application/json");
                    connection.send(request.body(body.into())?).await?;
                }
            }
            Self::Post {
                connection,
                template,
            } => {
                for Draft { topic, payload } in drafts {
                    let uri = template.replace("{topic}", &topic).parse()?;
                    connection
                        .send(request(&uri)?.body(payload.into())?)
                        .await?;
                }
            }
            Self::Line(socket) => {
                let lines: String = drafts
                    .iter()
                    .map(|Draft { topic, payload }| format!("PUBLISH {topic} {payload}\n"))
                    .collect();
                socket.write_all(lines.as_bytes()).await?;
            }
        }
        Ok(())
    }
}

/// A connection for one request after the other.
pub(crate) struct Connection {
    uri: Uri,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn open(uri: Uri) -> Result<Self> {
        let host = uri.host().ok_or("the URL to publish to names no host")?;
        let socket = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self { uri, sender })
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<()> {
        // Servers close a connection after so many requests, nginx after a thousand.
        if self.sender.ready().await.is_err() {
            *self = Self::open(self.uri.clone()).await?;
        }
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&body);
        Err(failure(format!("publishing is refused: {status} {body}")))
    }
}

fn request(uri: &Uri) -> Result<hyper::http::request::Builder> {
    let host = uri.authority().ok_or("the URL names no host")?.as_str();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder().method(Method::POST).uri(path);
    Ok(request.header(header::HOST, host))
}
