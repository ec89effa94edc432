//! `holdpoint serve`: run until told to end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::app::reload::Reload;
use crate::record::tail::Format;
use crate::{app, config};

/// Runs the gateway: 0 after an orderly end, 2 when it cannot run, 64 when its configuration is wrong.
pub fn serve(file: &Path, format: Format) -> u8 {
    log(format);
    #[cfg(feature = "bench")]
    crate::bench::warn();
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(mistakes) => return super::tell(super::wanting(&mistakes), format, &mut io::stdout()),
    };
    for said in config::warnings(&loaded) {
        tracing::warn!(event = "configuration", "{said}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holdpoint: {error}");
            return 2;
        }
    };
    let served = runtime.block_on(async {
        // From here on nobody who tells the program to end finds it unprepared, not even while it starts.
        let end = end().map_err(|error| error.to_string())?;
        let hangups = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
        let mut running = app::start(loaded).await.map_err(|error| error.to_string())?;
        running.follow();
        let asked = tokio::spawn(reload_when_asked(Arc::clone(running.reload()), hangups));
        until_told(running, end).await;
        asked.abort();
        Ok::<(), String>(())
    });
    match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("holdpoint: {error}");
            2
        }
    }
}

/// Listens for what tells the program to end; what it gives is done when that came.
pub(super) fn end() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Reads the configuration anew at each SIGHUP; those that come while it is read count as one.
async fn reload_when_asked(reload: Arc<Reload>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        // What is wrong has been said aloud.
        let _ = reload.now().await;
    }
}

async fn until_told(running: app::Running, end: impl Future<Output = ()>) {
    for listener in &running.listeners {
        tracing::info!(listener.name, address = %listener.address, kind = ?listener.kind, "listening");
    }
    let recovered = &running.recovered;
    if recovered.torn_bytes > 0 || recovered.dangling > 0 {
        tracing::warn!(
            audit.torn_bytes = recovered.torn_bytes,
            audit.dangling = recovered.dangling,
            "the audit was recovered after a crash"
        );
    }
    end.await;
    tracing::info!("draining");
    running.drain().await;
    tracing::info!("ended");
}

/// Own logs go to standard error, filtered by `HOLDPOINT_LOG`.
pub(super) fn log(format: Format) {
    let filter = EnvFilter::try_from_env("HOLDPOINT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber in one process keeps the first.
    let _ = match format {
        Format::Json => logs.json().try_init(),
        Format::Text => logs.with_target(false).try_init(),
    };
}
