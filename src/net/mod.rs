//! How bytes come to the broker: what a peer speaks, who stands behind a proxy, and MQTT over WebSocket.

pub mod detect;
pub mod proxy;
pub mod websocket;
