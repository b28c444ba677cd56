//! ShangMQ.
