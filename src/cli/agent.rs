//! `smg agent`: what the Sentinel (now Zentinel) proxy asks about requests, as a process of its own.

use std::collections::BTreeSet;
use std::process::ExitCode;

use tokio::runtime::Builder;

use crate::agent::{self, AgentError, Options};
use crate::{panics, run, telemetry};

/// What a module that can't be run ends the process with.
const BAD_MODULE: u8 = 2;

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("the log can't be set up: {0}")]
    Log(#[from] telemetry::LogError),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

pub fn run(options: Options) -> ExitCode {
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smg: {error}");
            match error {
                RunError::Agent(error) if error.is_module() => ExitCode::from(BAD_MODULE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn serve(options: Options) -> Result<(), RunError> {
    let mut log = options.log.clone();
    if options.verbose {
        log.log_level = "debug".to_owned();
    }
    let _log = telemetry::start(&log)?;
    run::warn_of_unknown_variables(&BTreeSet::new());
    panics::install();
    let runtime = Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = runtime.map_err(AgentError::System)?;
    Ok(runtime.block_on(agent::run(options))?)
}
