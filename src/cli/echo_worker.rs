//! `smg echo-worker`: a worker to try the gateway with.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;

use crate::config::ListenAddress;
use crate::config::value::{address, milliseconds_or_none};
use crate::echo::Echo;
use crate::listeners::ListenError;

#[derive(Debug, clap::Args)]
pub struct EchoWorker {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_parser = address)]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 30001)]
    port: u16,
    /// Name of the model that it says it serves
    #[arg(long, default_value = "echo")]
    model: String,
    /// Pause before each token of a streamed answer, in milliseconds
    #[arg(long, default_value = "0", value_name = "MS", value_parser = milliseconds_or_none)]
    token_delay_ms: Duration,
}

#[derive(Debug, thiserror::Error)]
enum EchoError {
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl EchoWorker {
    pub fn run(self) -> ExitCode {
        match self.serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("smg: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn serve(self) -> Result<(), EchoError> {
        let runtime = Builder::new_current_thread().enable_all().build_local(Default::default())?;
        runtime.block_on(async {
            let address = SocketAddr::new(self.host, self.port);
            let listener = TcpListener::bind(address).await;
            let setting = "--host, --port";
            let listener = listener.map_err(|cause| ListenError::Bind {
                address: ListenAddress::Tcp(address),
                setting,
                cause: cause.into(),
            })?;
            println!("listening on http://{}", listener.local_addr()?);
            let echo = Echo { model: self.model, token_delay: self.token_delay_ms };
            let mut stop = crate::run::Stop::new()?;
            tokio::select! {
                () = echo.serve(listener) => {}
                () = stop.asked() => {}
            }
            Ok(())
        })
    }
}
