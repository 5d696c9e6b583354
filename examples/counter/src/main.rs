//! A webhook service that counts, for any number of instances over one database.
//!
//! ```sh
//! cargo run -p counter
//! curl 'http://localhost:8080/webhook?user_id=alice&delta=5'
//! curl 'http://localhost:8080/status?user_id=alice'
//! ```
//!
//! A second instance: `cargo run -p counter -- --listen localhost:8081`. All options: `cargo run -p counter -- --help`.
#![forbid(unsafe_code)]

mod args;
mod database;
mod domain;
mod http;
mod listen;
mod refusal;
mod shutdown;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use actornot_core::{Actornot, Config, Scheduler};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, HELP, Role};
use crate::domain::Counter;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = match Args::parse(std::env::args_os().skip(1), std::env::var("DATABASE_URL").ok()) {
        Ok(Some(args)) => args,
        Ok(None) => return ended(say(HELP)),
        Err(error) => return ended(Err(format!("{error}; --help lists the options").into())),
    };
    ended(serve(args).await)
}

fn ended(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    // Half of it, so that a call is tried twice before its request is answered.
    let queue = database::open(&args.database, args.timeout / 2).await?;
    let system = Actornot::builder(queue).runner(Counter).configure(|config| apply(&args, config)).build()?;
    let mailbox = system.mailbox::<Counter>()?;

    // Caught before the address is printed: whoever reads it may send a signal at once.
    let mut signal = shutdown::Signal::listen()?;
    let (address, listeners) = listen::bind(&args.listen).await?;
    let (stop, stopped) = watch::channel(false);
    let mut servers = JoinSet::new();
    for listener in listeners {
        let mut stopped = stopped.clone();
        let server = axum::serve(listener, http::routes(mailbox.clone()));
        let until = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
        servers.spawn(server.with_graceful_shutdown(until).into_future());
    }
    drop(stopped);
    say(&greeting(&address, &database::redacted(&args.database)))?;

    signal.received().await;
    stop.send_replace(true);
    shutdown::requests(servers).await;
    if args.role != Role::FrontEnd {
        shutdown::backlog(&mailbox).await;
    }
    system.close().await;
    tracing::info!("drained");
    Ok(())
}

fn apply(args: &Args, config: &mut Config) {
    if args.role == Role::FrontEnd {
        config.scheduler = Scheduler::Never;
    }
    config.lease = args.lease.unwrap_or(config.lease);
    config.sweep_every = args.sweep_every.or(config.sweep_every);
    config.call_timeout = args.timeout;
}

fn greeting(address: &str, database: &str) -> String {
    format!(
        "Listening on http://{address}, with {database}\n\n  \
         curl 'http://{address}/webhook?user_id=alice&delta=5'\n  \
         curl 'http://{address}/status?user_id=alice'\n\n"
    )
}

fn say(text: &str) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
