//! Command line, environment, file, default.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::OsStr;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::super::flags::Known;
use super::super::{FileConfig, Unset, arguments};
use super::good;
use crate::config::Config;

/// A command like the real one: flags at the top, and again in a subcommand.
fn command() -> Command {
    let other = Command::new("other").arg(clap::Arg::new("token-delay").long("token-delay"));
    let launch = Config::augment_args(Command::new("launch"));
    Config::augment_args(Command::new("smg").args_conflicts_with_subcommands(true)).subcommands([launch, other])
}

fn parse(command: Command, line: &[OsString]) -> Result<(ArgMatches, Option<FileConfig>), clap::Error> {
    Ok(arguments::parse(command, line, |_, _| Vec::new(), Unset::Mistake)?)
}

/// A file of one test, removed at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("smg-precedence-{name}-{}.yaml", std::process::id()));
        std::fs::write(&path, text).expect("a file");
        Self(path)
    }

    fn parse(&self, command: Command, line: &str) -> Result<Config, clap::Error> {
        let line = line.replace("FILE", self.0.to_str().expect("UTF-8"));
        let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let (matches, file) = parse(command, &line)?;
        assert!(file.is_some(), "the file was not read");
        let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
        Config::from_arg_matches(matches)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const TEXT: &str = "port: 1\nlog_json: true\nlog_level: debug\nmax_payload_size: 7\n\
    worker_urls:\n- http://a:1\n- http://b:2,http://c:3\nrequest_id_headers: ['x-a,x-b', x-c]\n\
    wasm_cache_dir: -odd\napi_key: --key\nhealth_check_timeout_secs: 0.5\n";

fn urls(config: &Config) -> Vec<String> {
    config.workers.urls().iter().map(ToString::to_string).collect()
}

#[test]
fn the_file_stands_between_the_environment_and_the_defaults() {
    let file = File::new("order", TEXT);
    for line in ["smg --config FILE --port=2", "smg launch --port 2 --config=FILE"] {
        // The variable is one that is set everywhere: changing the environment would reach other tests.
        let path = std::env::var_os("PATH").expect("a path");
        let with_environment = |command: Command| {
            command.mut_arg("wasm_module_dir", |arg| arg.env("PATH")).mut_arg("log_level", |arg| arg.env("SMG_NONE"))
        };
        let command = with_environment(command()).mut_subcommand("launch", with_environment);
        let config = file.parse(command, line).expect("a good line");
        assert_eq!(config.listen.port, 2, "the command line comes first");
        assert_eq!(config.wasm.wasm_module_dir, Some(PathBuf::from(path)), "the environment counts");
        assert_eq!((config.log.log_level.as_str(), config.log.log_json), ("debug", true), "then the file");
        assert_eq!(config.listen.prometheus_host.to_string(), "0.0.0.0", "then the default");
        assert_eq!(urls(&config), ["http://a:1", "http://b:2", "http://c:3"]);
        assert_eq!(config.limits.request_id_headers, ["x-a", "x-b", "x-c"]);
        assert_eq!(config.wasm.wasm_cache_dir, Some(PathBuf::from("-odd")));
        assert_eq!(config.access.api_key.map(|key| key.expose().to_owned()), Some(b"--key".to_vec()));
    }
}

#[test]
fn the_environment_comes_before_the_file() {
    let file = File::new("environment", "wasm_cache_dir: /from-file\nconfig_dir_is_no_key: 1\n");
    let error = file.parse(command(), "smg --config=FILE").expect_err("an unknown key");
    assert!(error.exit_code() == 2 && error.to_string().contains("config_dir_is_no_key: no such key"), "{error}");

    let file = File::new("environment", "wasm_cache_dir: /from-file\n");
    let path = std::env::var_os("PATH").expect("a path");
    let command = command().mut_arg("wasm_cache_dir", |arg| arg.env("PATH"));
    let config = file.parse(command, "smg --config=FILE").expect("a good line");
    assert_eq!(config.wasm.wasm_cache_dir, Some(PathBuf::from(path)));
}

#[test]
fn the_environment_has_no_say_in_whether_a_file_is_right() {
    assert!(Known::new().flags().all(|flag| flag.get_env().is_none()));
}

#[test]
fn lists_are_replaced_as_a_whole() {
    let file = File::new("lists", TEXT);
    let config = file.parse(command(), "smg --config=FILE --worker-urls http://d:4").expect("a good line");
    assert_eq!(urls(&config), ["http://d:4"]);
    let file = File::new("lists", "request_id_headers: []\nlog_json: false");
    let config = file.parse(command(), "smg --config=FILE --log-json").expect("a good line");
    assert!(config.limits.request_id_headers.is_empty() && config.log.log_json);
}

#[test]
fn other_commands_do_not_read_the_file() {
    let command = command().mut_arg("config", |arg| arg.env("PATH"));
    let line = ["smg", "other", "--token-delay=1"].map(OsString::from);
    let (_, file) = parse(command, &line).expect("a good line");
    assert!(file.is_none());
}

#[test]
fn secrets_are_in_no_error_and_no_help() {
    let line = ["smg", "--api-key=hunter\u{e4}"].map(OsString::from);
    let error = parse(command(), &line).expect_err("a bad key");
    assert!(error.to_string().contains("--api-key") && !error.to_string().contains("hunter"), "{error}");
    let line = ["smg", "launch", "--api-key=hunter\u{e4}"].map(OsString::from);
    let error = parse(command(), &line).expect_err("a bad key");
    assert!(!error.to_string().contains("hunter"), "{error}");
    let line = ["smg", "--port=99999"].map(OsString::from);
    let error = parse(command(), &line).expect_err("a bad port");
    assert!(error.to_string().contains("99999"), "{error}");
    // A parser that quotes what it was given.
    let refuse = |text: &str| Err::<String, String>(format!("`{text}` is no key"));
    let quoting = clap::Arg::new("key").long("key").hide_env_values(true).value_parser(refuse);
    let line = ["smg", "--key=hunter2"].map(OsString::from);
    let error = parse(Command::new("smg").arg(quoting), &line).expect_err("a bad key");
    assert!(error.to_string().contains("--key") && !error.to_string().contains("hunter2"), "{error}");
    let help = good("api_key: hunter2").flags.as_defaults(command()).render_long_help().to_string();
    assert!(!help.contains("hunter2"), "{help}");
}

#[test]
fn the_command_is_sound_with_any_file() {
    let flags = good(TEXT).flags;
    flags.as_defaults(command()).mut_subcommands(|command| flags.as_defaults(command)).debug_assert();
    let values: Vec<OsStr> = vec![OsStr::from("x-a"), "x-b".into(), "x-c".into()];
    let command = flags.as_defaults(command());
    let headers = command.get_arguments().find(|arg| arg.get_id() == "request_id_headers").expect("the flag");
    assert_eq!(headers.get_default_values(), values);
}
