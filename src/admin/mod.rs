//! The operator's HTTP endpoint: `GET /metrics` and `GET /health`. No authentication, so it belongs on loopback or
//! a management network.
//!
//! A connection lives for [`CONNECTION_LIFETIME`] at most, whatever it does or fails to do, and there are
//! [`MAX_CONNECTIONS`] at a time: a slow or silent peer costs a place for that long and nothing else.

mod bounded;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{error, info};

use crate::broker::Broker;
use crate::metrics::{self, Gauges};
use bounded::BoundedListener;

/// Connections open at once; the next ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 16;
/// From accept to close, for the request and the answer together.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(10);

/// From accept to a whole request: a probe of an orchestrator gives up after a second or a few, and silent peers must not take all the
/// places for longer.
pub const REQUEST_TIME: Duration = Duration::from_secs(2);

/// Answers until `stop` says so or its sender is gone.
pub async fn serve(socket: TcpListener, broker: Arc<Broker>, stop: watch::Receiver<bool>) {
    let scrape = move || {
        let gauges = Gauges {
            sessions: broker.session_count(),
            subscriptions: broker.subscription_count(),
            retained_messages: broker.retained_count(),
        };
        broker.metrics().encode(gauges)
    };
    serve_text(socket, scrape, stop).await;
}

async fn serve_text(
    socket: TcpListener,
    scrape: impl Fn() -> String + Clone + Send + Sync + 'static,
    mut stop: watch::Receiver<bool>,
) {
    match socket.local_addr() {
        Ok(address) => info!(%address, "serving metrics"),
        Err(cause) => info!(%cause, "serving metrics at an address that the system does not tell"),
    }
    // Every answer closes its connection: one kept open would reach the end of its life under a later request.
    let metrics = move || async move { ([(CONTENT_TYPE, metrics::CONTENT_TYPE), (CONNECTION, "close")], scrape()) };
    let routes = Router::new().route("/metrics", get(metrics)).route("/health", get(health)).fallback(not_found);
    let stopped = async move {
        // An error means that the sender is gone, which ends the server as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let listener = BoundedListener::new(socket, MAX_CONNECTIONS, REQUEST_TIME, CONNECTION_LIFETIME);
    if let Err(cause) = axum::serve(listener, routes).with_graceful_shutdown(stopped).await {
        error!(%cause, "the metrics endpoint ended");
    }
}

async fn health() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8"), (CONNECTION, "close"), (CACHE_CONTROL, "no-store")], "ok\n")
}

async fn not_found() -> impl IntoResponse {
    (axum::http::StatusCode::NOT_FOUND, [(CONNECTION, "close")], "not found\n")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::metrics::Metrics;

    async fn start() -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let metrics = Arc::new(Metrics::new());
        metrics.listener("tcp:default");
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let scrape = move || metrics.encode(Gauges { sessions: 1, ..Gauges::default() });
        (address, stop, tokio::spawn(serve_text(socket, scrape, stopped)))
    }

    /// Sends bytes and reads until the server closes.
    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn serves_metrics_as_openmetrics() {
        let (address, _stop, _) = start().await;
        let answer = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
        assert!(body.contains("\nshangmq_sessions 1\n"), "{body}");
        assert!(body.contains("shangmq_connections{listener=\"tcp:default\"} 0\n"), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }

    #[tokio::test]
    async fn answers_health_and_nothing_else() {
        let (address, _stop, _) = start().await;
        let answer = exchange(address, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        let answer = exchange(address, b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let answer = exchange(address, b"POST /metrics HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 405 ") || answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    #[tokio::test]
    async fn refuses_what_is_not_http_and_goes_on() {
        let (address, _stop, _) = start().await;
        let garbage = exchange(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await;
        assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
        let mut huge = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
        huge.resize(1 << 20, b'x');
        let refused = exchange_lossy(address, &huge).await;
        assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431 "), "{refused}");
        assert!(exchange(address, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.contains("ok"));
    }

    /// The server may close before it has read everything.
    async fn exchange_lossy(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn stops_when_told() {
        let (address, stop, task) = start().await;
        assert!(exchange(address, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.contains("ok"));
        stop.send_replace(true);
        task.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
