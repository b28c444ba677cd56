//! interim
pub async fn serve(
    _socket: tokio::net::TcpListener,
    _broker: std::sync::Arc<crate::broker::Broker>,
    _stop: tokio::sync::watch::Receiver<bool>,
) {
}
