//! Who may call.

use clap::Args;

use super::Secret;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct Access {
    /// Key that callers must send as `Authorization: Bearer KEY`; also admits to the admin API
    #[arg(long, env = "SMG_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<Secret>,
    /// Key for the admin API; without any key it answers only this machine
    #[arg(long, env = "SMG_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<Secret>,
}
