//! The command line: which command was asked for, with which settings.

pub mod agent;
pub mod check;
pub mod demo;
pub mod echo_worker;
pub mod health;

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::admin::wasm;
use crate::config::{Config, Wasm, environment, file};
use crate::modules;

/// The units that flag values may have.
const UNITS: &str = "Times and sizes may have a unit: 500ms, 30s, 5m, 2h, 1d; 64KiB, 10MiB (powers of 1024); 10MB, \
                     1GB (powers of 1000). Without a unit they are in seconds, milliseconds or bytes, as the flag says.";

/// A WebAssembly-extensible gateway in front of LLM inference workers
#[derive(Debug, Parser)]
#[command(name = "smg", version, max_term_width = 110, args_conflicts_with_subcommands = true, after_help = UNITS)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway: the same as no command
    Launch(Box<Config>),
    /// Run the gateway: the same as no command
    Start(Box<Config>),
    /// Try it: a gateway, two echo workers and four modules on this machine
    Demo(demo::Demo),
    /// Run a module for the Sentinel (Zentinel) proxy, on a Unix socket
    Agent(Box<crate::agent::Options>),
    /// Say what is wrong with a configuration file, and exit 0 or 2
    Check(check::Check),
    /// Ask a running gateway whether it is alive, and exit 0 or 1
    Health(health::Health),
    /// Run an OpenAI-compatible worker that repeats what it is told
    EchoWorker(echo_worker::EchoWorker),
    /// Compile a module from standard input to standard output (the gateway calls this itself)
    #[command(hide = true)]
    Compile(modules::CompileArgs),
}

/// Options that take several values, also in the form `--option=first second`.
const MANY_VALUED: [&str; 6] = [
    "--worker-urls",
    "--request-id-headers",
    "--wasm-module",
    "--dns-servers",
    "--ca-cert-paths",
    "--cors-allowed-origins",
];

impl Cli {
    /// Reads the process's arguments. The error is what to print, and the exit code, of help too.
    pub fn from_process() -> Result<Self, clap::Error> {
        Self::read(std::env::args_os())
    }

    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments = split_many_valued(arguments);
        let mut command = environment::settle(Self::command(), &arguments);
        let parsed = file::parse(command.clone(), &arguments, check_module, file::Unset::Mistake);
        let (matches, file) = parsed.map_err(|error| explain(error.into(), &command, &arguments))?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        if let Some(file) = file {
            cli.config_mut().read(file);
        }
        Ok(cli)
    }

    /// The settings of the gateway that was asked for.
    pub fn into_config(self) -> Config {
        match self.command {
            Some(Command::Launch(config) | Command::Start(config)) => *config,
            _ => self.config,
        }
    }

    fn config_mut(&mut self) -> &mut Config {
        match &mut self.command {
            Some(Command::Launch(config) | Command::Start(config)) => config,
            _ => &mut self.config,
        }
    }
}

/// What the admin API would say of a module of the configuration file, but for what only its bytes can tell.
fn check_module(module: &file::Module, flags: &Wasm) -> Vec<file::Problem> {
    let mistakes = wasm::mistakes(module, &flags.into());
    mistakes.iter().map(|error| module.problem(&error.field, &error.text)).collect()
}

/// Adds a tip to an error: which flag was meant, or where the value came from.
fn explain(mut error: clap::Error, command: &clap::Command, arguments: &[OsString]) -> clap::Error {
    let tip = match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument | ErrorKind::ArgumentConflict => meant_file(&error),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => of_variable(&error, command, arguments),
        _ => None,
    };
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// If a file is given where a command is expected, it is probably a configuration file.
fn meant_file(error: &clap::Error) -> Option<String> {
    let named = error.get(ContextKind::InvalidSubcommand).or_else(|| error.get(ContextKind::InvalidArg));
    let Some(ContextValue::String(named)) = named else { return None };
    let is_yaml = [".yaml", ".yml"].iter().any(|suffix| named.ends_with(suffix));
    let is_meant = !named.starts_with('-') && (is_yaml || Path::new(named).is_file());
    is_meant.then(|| format!("pass a configuration file with --config: smg --config {named}"))
}

/// clap names only the flag, even if the value came from its environment variable.
fn of_variable(error: &clap::Error, command: &clap::Command, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return None };
    let long = named.strip_prefix("--")?.split([' ', '=', '[']).next()?;
    let is_typed = |argument: &OsString| {
        let rest = argument.to_str().and_then(|argument| argument.strip_prefix("--")?.strip_prefix(long));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let mut flags = commands.flat_map(clap::Command::get_arguments).filter(|flag| flag.get_long() == Some(long));
    let variable = flags.find_map(|flag| flag.get_env()).filter(|variable| std::env::var_os(variable).is_some())?;
    let is_from_there = !arguments.iter().any(is_typed);
    is_from_there.then(|| format!("the value comes from the environment variable {}", variable.to_string_lossy()))
}

/// clap takes no further values after `--option=value`; existing command lines put them there.
fn split_many_valued(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut split = Vec::new();
    for argument in arguments {
        match argument.to_str().and_then(|text| text.split_once('=')) {
            Some((option, value)) if MANY_VALUED.contains(&option) => {
                split.push(option.into());
                split.push(value.into());
            }
            _ => split.push(argument),
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::read(line.split(' ').map(OsString::from))
    }

    fn workers(line: &str) -> Vec<String> {
        let config = read(line).expect("a good line").into_config();
        config.workers.urls().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn workers_come_in_every_form() {
        let two = ["http://a:1", "http://b:2"];
        assert_eq!(workers("smg --worker-urls=http://a:1 http://b:2 --port=3000"), two);
        assert_eq!(workers("smg --worker-urls http://a:1 http://b:2"), two);
        assert_eq!(workers("smg --worker-urls=http://a:1,http://b:2"), two);
        assert_eq!(workers("smg --worker-urls http://a:1 --worker-urls=http://b:2 --worker-urls=http://a:1"), two);
        assert_eq!(workers("smg launch --worker-urls=http://a:1 http://b:2"), two);
        assert_eq!(workers("smg start --worker-urls=http://a:1 http://b:2"), two);
    }

    #[test]
    fn wrong_values_name_the_option() {
        for (line, option) in [
            ("smg --policy=nonsense", "--policy"),
            ("smg --worker-urls=nonsense", "--worker-urls"),
            ("smg --port=70000", "--port"),
            ("smg --request-timeout-secs=0", "--request-timeout-secs"),
            ("smg --wasm-on-failure=maybe", "--wasm-on-failure"),
            ("smg --nonsense", "--nonsense"),
        ] {
            let error = read(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(option), "{line}: {error}");
        }
    }
}
