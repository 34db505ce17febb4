//! HTTP for the buckets, by the client that the rest of the program uses: no second one is linked.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::client::{
    ClientConfigKey, ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use ureq::http::Method;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// The longest answer: parts of objects are far shorter.
const LONGEST: u64 = 1 << 30;

/// Makes clients of [`ureq`].
#[derive(Debug)]
pub struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|allowed| allowed == "true");
        Ok(HttpClient::new(Client { plain }))
    }
}

#[derive(Debug)]
struct Client {
    /// True where `http://` is allowed.
    plain: bool,
}

/// One agent for each way, so that connections are used again.
static AGENTS: LazyLock<[Agent; 4]> =
    LazyLock::new(|| [(false, false), (false, true), (true, false), (true, true)].map(agent));

fn agent((plain, near): (bool, bool)) -> Agent {
    let config = Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(5)))
        .timeout_send_body(Some(Duration::from_secs(300)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections_per_host(32)
        .https_only(!plain)
        .accept_encoding("identity")
        .tls_config(TlsConfig::builder().root_certs(RootCerts::WebPki).build())
        .user_agent(concat!("halftone/", env!("CARGO_PKG_VERSION")));
    // This machine needs no proxy to reach itself.
    let config = if near { config.proxy(None) } else { config };
    config.build().new_agent()
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let near = parts.uri.host().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host));
        let agent = AGENTS[usize::from(self.plain) * 2 + usize::from(near)].clone();
        let answered = tokio::task::spawn_blocking(move || {
            let has_body = !body.is_empty() || [Method::PUT, Method::POST].contains(&parts.method);
            let response = match has_body {
                true => agent.run(ureq::http::Request::from_parts(parts, &body[..]))?,
                false => agent.run(ureq::http::Request::from_parts(parts, ()))?,
            };
            let (parts, body) = response.into_parts();
            let bytes = read(body)?;
            Ok::<_, ureq::Error>((parts, bytes))
        });
        let failed = |error| HttpError::new(HttpErrorKind::Unknown, error);
        let (parts, bytes) = answered.await.map_err(failed)?.map_err(of_client)?;
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(bytes)))
    }
}

fn read(mut body: Body) -> Result<Vec<u8>, ureq::Error> {
    body.with_config().limit(LONGEST).read_to_vec()
}

/// The kind decides whether a request that must not be done twice is sent again: only where none arrived.
fn of_client(error: ureq::Error) -> HttpError {
    use std::io::ErrorKind;
    let kind = match &error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Tls(_) => HttpErrorKind::Connect,
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => HttpErrorKind::Connect,
        ureq::Error::Io(source) if source.kind() == ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::Io(_) | ureq::Error::Protocol(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
