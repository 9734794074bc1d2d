//! Variables that somebody else has put into the environment: Kubernetes, for a service with our name, or a slip.

use crate::support::{ConfigFile, Gateway, Worker, run};

/// What Kubernetes gives each container of a namespace with a service named `smg` and one named `smg-prometheus`.
const SERVICES: [(&str, &str); 12] = [
    ("SMG_PORT", "tcp://10.96.12.7:3000"),
    ("SMG_SERVICE_HOST", "10.96.12.7"),
    ("SMG_SERVICE_PORT", "3000"),
    ("SMG_SERVICE_PORT_HTTP", "3000"),
    ("SMG_PORT_3000_TCP", "tcp://10.96.12.7:3000"),
    ("SMG_PORT_3000_TCP_PROTO", "tcp"),
    ("SMG_PORT_3000_TCP_PORT", "3000"),
    ("SMG_PORT_3000_TCP_ADDR", "10.96.12.7"),
    ("SMG_PROMETHEUS_SERVICE_HOST", "10.96.12.8"),
    ("SMG_PROMETHEUS_PORT", "tcp://10.96.12.8:9090"),
    ("SMG_PROMETHEUS_PORT_9090_TCP", "tcp://10.96.12.8:9090"),
    ("SMG_PROMETHEUS_PORT_9090_UDP_ADDR", "10.96.12.8"),
];

#[test]
fn the_variables_of_a_service_with_our_name_are_ignored_and_not_even_mentioned() {
    let worker = Worker::echo();
    let file = ConfigFile::new(format!("port: 0\nworker_urls: [{}]\n", worker.url()));
    for (subcommand, arguments) in [("launch", &["--port=0"][..]), ("", &[])] {
        let mut builder = Gateway::builder().without_defaults();
        if !subcommand.is_empty() {
            builder = builder.subcommand(subcommand);
        }
        let builder = builder.arg("--host=127.0.0.1").arg(format!("--config={}", file.path));
        let builder = arguments.iter().fold(builder, |builder, argument| builder.arg(*argument));
        let gateway = SERVICES.iter().fold(builder, |builder, (name, value)| builder.env(name, *value)).start();
        assert_eq!(gateway.get("/").status, 200);
        let log = gateway.log();
        assert!(!log.contains("environment variable") && !gateway.stdout().contains("metrics on"), "{log}");
        let port = gateway.address.port().to_string();
        let health = run(&["health", "--port", &port], &SERVICES);
        assert_eq!(health.code, Some(0), "{}", health.stderr);
    }
    let checked = run(&["check", &file.path], &SERVICES);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    let help = run(&["--help"], &SERVICES);
    assert_eq!(help.code, Some(0), "{}", help.stderr);
}

#[test]
fn a_flag_on_the_command_line_wins_over_a_variable_that_can_not_be_parsed() {
    let worker = Worker::echo();
    let bad = [("SMG_PORT", "three thousand"), ("SMG_MAX_PAYLOAD_SIZE", "much"), ("SMG_WORKER_URLS", "nonsense")];
    let file = ConfigFile::new("port: 0\n");
    for subcommand in [None, Some("launch")] {
        let mut builder = Gateway::builder().worker(&worker).arg("--max-payload-size=10");
        if let Some(name) = subcommand {
            builder = builder.subcommand(name);
        }
        let gateway = bad.iter().fold(builder, |builder, (name, value)| builder.env(name, *value)).start();
        let port = gateway.address.port().to_string();
        let health = run(&["health", "--port", &port], &bad);
        assert_eq!(health.code, Some(0), "what the gateway reads is no matter for its health: {}", health.stderr);
    }
    assert_eq!(run(&["check", &file.path], &bad).code, Some(0));
    for arguments in [&["--port=0"][..], &["launch", "--port=0"], &["health"]] {
        let ran = run(arguments, &bad);
        assert!(ran.code == Some(2), "without the flag it counts: {arguments:?} {}", ran.stderr);
        assert!(ran.stderr.contains("environment variable SMG_"), "{}", ran.stderr);
    }
    let typed = run(&["--port=0", "--max-payload-size=none"], &[("SMG_MAX_PAYLOAD_SIZE", "1")]);
    assert!(typed.code == Some(2) && !typed.stderr.contains("environment"), "{}", typed.stderr);
}

#[test]
fn unknown_variables_are_warned_of_with_the_nearest_and_without_their_values() {
    let worker = Worker::echo();
    let file = ConfigFile::new(
        "keys:\n- {name: a, role: admin, key_env: SMG_TEAM_A}\n- {name: b, role: caller, key_env: TEAM_B}\n",
    );
    let builder = Gateway::builder().worker(&worker).arg(format!("--config={}", file.path));
    let builder = builder.env("SMG_PROT", "s3cret").env("SMG_TEAM_A", "k3y-a").env("TEAM_B", "k3y-b");
    let gateway = builder.env("SMG_WHOLLY_ELSE", "s3cret").env("SMGX", "1").start();
    let near = gateway.wait_for_log("SMG_PROT");
    assert!(near.contains(" WARN ") && near.contains("meant=\"SMG_PORT\""), "{near}");
    assert!(gateway.wait_for_log("SMG_WHOLLY_ELSE").contains("meant=\"\""));
    let log = gateway.log();
    assert_eq!(log.matches("nothing reads this environment variable").count(), 2, "{log}");
    assert!(!log.contains("s3cret") && !log.contains("k3y"), "{log}");
}
