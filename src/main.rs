//! Flags, telemetry, build, run. The only place where the process ends.

use std::process::ExitCode;

use smg::allocator::{ALLOCATOR, Allocator};
use smg::cli::{self, Cli, Command};
use smg::config::Config;
use smg::{modules, run};

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

fn main() -> ExitCode {
    let cli = match Cli::from_process() {
        Ok(cli) => cli,
        Err(answer) => {
            // Nobody may be reading.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2));
        }
    };
    match cli.command {
        None => serve(cli.config),
        Some(Command::Launch(config) | Command::Start(config)) => serve(*config),
        Some(Command::Check(check)) => check.run(),
        Some(Command::Demo(demo)) => demo.run(),
        Some(Command::Agent(options)) => cli::agent::run(*options),
        Some(Command::Health(health)) => health.run(),
        Some(Command::EchoWorker(worker)) => worker.run(),
        Some(Command::Compile(args)) => modules::compile_process(&args),
    }
}

fn serve(config: Config) -> ExitCode {
    let read = || Cli::from_process().map(Cli::into_config).map_err(|error| error.to_string());
    match run::until_told_to_stop(config, read) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smg: {error}");
            ExitCode::FAILURE
        }
    }
}
