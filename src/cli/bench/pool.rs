//! Threads that clients are spread over. A client stays on its thread, so that its socket, its timer and its task wake each other
//! without leaving it.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The threads; they end when the pool is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Dropped to end the thread.
    _stop: oneshot::Sender<()>,
}

impl Pool {
    /// # Errors
    /// The system gives no thread.
    pub fn start(threads: usize) -> io::Result<Pool> {
        let mut workers = Vec::new();
        for number in 0..threads {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (stop, stopped) = oneshot::channel::<()>();
            thread::Builder::new().name(format!("bench-{number}")).spawn(move || {
                // Ends when the sender is dropped.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            })?;
            workers.push(Worker { handle, _stop: stop });
        }
        Ok(Pool { workers })
    }

    /// One for each processor, unless it is said otherwise.
    pub fn threads(wanted: Option<u16>) -> usize {
        wanted.map_or_else(|| thread::available_parallelism().map_or(1, NonZeroUsize::get), usize::from)
    }

    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Runs `future` on the thread of client `index`; `None` only of a pool without threads.
    pub fn spawn<F>(&self, index: usize, future: F) -> Option<JoinHandle<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let worker = self.workers.get(index.checked_rem(self.workers.len())?)?;
        Some(worker.handle.spawn(future))
    }
}
