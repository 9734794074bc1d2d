//! Who may call.

use clap::Args;

use super::Secret;
use super::value::origin;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct Access {
    /// Key that clients must send as `Authorization: Bearer KEY`, `x-api-key: KEY` or `api-key: KEY`; also admits to
    /// the admin API
    #[arg(long, env = "SMG_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<Secret>,
    /// Origins of web pages that may call, such as `https://chat.example`; `*` for all
    #[arg(long, env = "SMG_CORS_ALLOWED_ORIGINS", value_name = "ORIGIN", num_args = 1.., value_delimiter = ',', value_parser = origin)]
    pub cors_allowed_origins: Vec<String>,
    /// Key for the admin API; without any key it answers only this machine
    #[arg(long, env = "SMG_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<Secret>,
}
