//! The runtime in which connections are accepted and secured.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime with one thread for each processor.
///
/// They have the priority of all others. With less, newcomers waited for seconds while anything else wanted the processors, and
/// established connections gained nothing: a thread that has to wait may hold a lock of the allocator or the kernel meanwhile.
///
/// # Errors
/// The system gives no thread.
pub fn handshake_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().thread_name("handshake").enable_all().build()
}
