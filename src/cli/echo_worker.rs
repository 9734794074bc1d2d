//! `smg echo-worker`: a worker to try the gateway with.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;

use crate::echo::Echo;

#[derive(Debug, clap::Args)]
pub struct EchoWorker {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 30001)]
    port: u16,
    /// Name of the model that it says it serves
    #[arg(long, default_value = "echo")]
    model: String,
    /// Pause before each token of a streamed answer, in milliseconds
    #[arg(long, default_value_t = 0)]
    token_delay_ms: u64,
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

    fn serve(self) -> std::io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build_local(Default::default())?;
        runtime.block_on(async {
            let listener = TcpListener::bind(SocketAddr::new(self.host, self.port)).await?;
            println!("listening on http://{}", listener.local_addr()?);
            let echo = Echo { model: self.model, token_delay: Duration::from_millis(self.token_delay_ms) };
            let mut stop = crate::run::Stop::new()?;
            tokio::select! {
                () = echo.serve(listener) => {}
                () = stop.asked() => {}
            }
            Ok(())
        })
    }
}
