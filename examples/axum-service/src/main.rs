//! A service on axum that takes part in its checkpoints: it stops listening before the image is taken, and
//! listens again afterwards, in the original and in every copy.
//!
//! ```console
//! $ PORT=8080 tub run --image app.image -- axum-service
//! $ tub checkpoint PID --image app.image
//! $ tub restore app.image --env PORT=8081
//! ```
//!
//! In: `PORT`, as it is where this life of the service began. Out: which life it is, how many requests were
//! served in all lives, and a random number.
//! Invariant: requests that were accepted are answered before the image is taken; the runtime itself, its
//! threads and whatever else waits on it go on in a copy as they are.
//! Not here: anything about engines.
#![forbid(unsafe_code)]

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tubthumping_app::{HookError, Outcome, Resource, register};

/// What requests are answered from. It is in the image like all other memory.
struct Life {
    name: &'static str,
    served: u64,
    generator: StdRng,
}

type Shared = Arc<Mutex<Life>>;

async fn greet(State(life): State<Shared>) -> String {
    let mut life = lock(&life);
    life.served += 1;
    let number: u64 = life.generator.random();
    format!("{} {} {number}\n", life.name, life.served)
}

/// Registered first, so that what is said here is known when the door opens.
struct Renewal(Shared);

impl Resource for Renewal {
    fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
        let mut life = lock(&self.0);
        match outcome {
            Outcome::Restored(copy) => {
                life.name = "restored";
                // All copies have the state that the generator had in the image.
                life.generator = StdRng::from_seed(copy.seed);
            }
            Outcome::Resumed(_) => life.name = "resumed",
            // There is no image: nothing has changed.
            Outcome::Failed => {}
        }
        Ok(())
    }
}

/// The listening socket, and the task that serves what comes in by it.
struct Door {
    service: Router,
    /// Hooks run on a thread outside of the runtime, and may wait for it.
    runtime: Handle,
    open: Mutex<Option<Open>>,
}

struct Open {
    close: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl Door {
    async fn open(&self, port: u16) -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("port {}", listener.local_addr()?.port());
        let (close, closes) = oneshot::channel();
        let serve = axum::serve(listener, self.service.clone());
        let serve = serve.with_graceful_shutdown(async { closes.await.unwrap_or_default() });
        let served = self.runtime.spawn(serve.into_future());
        *lock(&self.open) = Some(Open { close, served });
        Ok(())
    }

    /// Answers what was asked, and ends all connections. Closes nothing where nothing is open.
    async fn close(&self) -> io::Result<()> {
        let Some(Open { close, served }) = lock(&self.open).take() else { return Ok(()) };
        // Its receiver is gone only if the task has ended by itself, which tells why.
        let _ = close.send(());
        served.await.map_err(io::Error::other)?
    }
}

impl Resource for Door {
    fn before_checkpoint(&self) -> Result<(), HookError> {
        Ok(self.runtime.block_on(self.close())?)
    }

    fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
        let port = match outcome {
            // Nothing of the new environment is applied to the process.
            Outcome::Restored(copy) => {
                let port = copy.environment.iter().find(|(name, _)| name == "PORT");
                port.and_then(|(_, value)| value.to_str()).map(str::to_owned)
            }
            Outcome::Resumed(_) | Outcome::Failed => std::env::var("PORT").ok(),
        };
        Ok(self.runtime.block_on(self.open(number(port.as_deref())?))?)
    }
}

/// The port that a variable names, or the usual one.
fn number(variable: Option<&str>) -> io::Result<u16> {
    let unusable = |word| io::Error::other(format!("PORT={word}: no number of a port"));
    variable.map_or(Ok(8080), |word| word.parse().map_err(|_| unusable(word)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let life = Life { name: "original", served: 0, generator: rand::make_rng() };
    let life = Arc::new(Mutex::new(life));
    let door = Arc::new(Door {
        service: Router::new().route("/", get(greet)).with_state(Arc::clone(&life)),
        runtime: Handle::current(),
        open: Mutex::new(None),
    });
    register("renewal", Renewal(life))?.keep();
    register("door", Arc::clone(&door))?.keep();
    door.open(number(std::env::var("PORT").ok().as_deref())?).await?;
    signal(SignalKind::terminate())?.recv().await;
    door.close().await?;
    Ok(())
}
