//! `--server`, a server that generates in place of a model in this process, and the API keys of servers.

use std::convert::Infallible;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use infalign_decode::{DecodeError, Patience, RemoteError, Server};
use infalign_record::Secrets;

use crate::failure::Failure;
use crate::interrupt;

/// Arguments that say where responses are generated.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// OpenAI-compatible server that generates, such as vLLM's or llama.cpp's, as http://HOST:PORT. --model, which has to be the model
    /// served, then gives tokenizer, chat template and configuration alone, and --batch is the number of requests at a time.
    #[arg(long, value_name = "URL", conflicts_with_all = ["exact", "memory"])]
    pub(crate) server: Option<String>,
    /// Name of the model on the server; without it, the only one there.
    #[arg(long, value_name = "NAME", requires = "server")]
    server_model: Option<String>,
    /// Environment variable that holds the server's API key.
    #[arg(long, value_name = "NAME", requires = "server", value_parser = key_variable)]
    api_key_env: Option<String>,
    /// Seconds that one request to the server may take.
    #[arg(long, value_name = "SECONDS", requires = "server", default_value = "600", value_parser = seconds)]
    timeout: Patience,
}

impl ServerArgs {
    /// The server at `url`, which is not asked any more after Ctrl-C, and the name of the model there.
    ///
    /// # Errors
    /// [`Failure::Input`] when the address or the key cannot be used, the server does not answer, a name is needed, or the server refuses the key;
    /// [`Failure::Stopped`] where it was asked to stop before that was known.
    pub(crate) fn connect(&self, url: &str) -> Result<(Server, String), Failure> {
        self.look_up(url).map_err(|error| match error.downcast_ref() {
            Some(DecodeError::Remote(RemoteError::Cancelled { .. })) => Failure::Stopped(error),
            // The last try failed meanwhile.
            _ if interrupt::asked() => Failure::Stopped(error),
            _ => Failure::Input(error),
        })
    }

    fn look_up(&self, url: &str) -> Result<(Server, String)> {
        let key = self.api_key_env.as_deref().map(needed_key).transpose()?;
        let patience = Patience { cancelled: Some(interrupt::flag()), ..self.timeout };
        let server = Server::new(url, key.as_deref(), patience)?;
        let model = match &self.server_model {
            Some(model) => named(url, server.models(), model)?,
            None => only(url, server.models()?)?,
        };
        Ok((server, model))
    }
}

/// The model of that name, which the server is asked for; only a key that it refuses, or no server there, is refused at once.
fn named(url: &str, models: Result<Vec<String>, DecodeError>, name: &str) -> Result<String> {
    use RemoteError::{Answer, Refused};
    match models {
        Ok(models) => warn_if_unlisted(url, name, &models),
        Err(error @ DecodeError::Remote(Refused { status: 401, .. })) => return Err(error.into()),
        // It has no list, or none for everybody.
        Err(DecodeError::Remote(Refused { .. } | Answer { .. })) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(name.to_owned())
}

/// Warns of a model that is not among those that a server lists: some take other names, too.
pub(crate) fn warn_if_unlisted(url: &str, name: &str, models: &[String]) {
    if !models.is_empty() && models.iter().all(|model| model != name) {
        tell!(
            "warning: the server {url} does not list the model {name:?}, but {}",
            models.join(", ")
        );
    }
}

/// The API key that an environment variable holds, without white space around it; None where there is none. Every key is read here, and from
/// then on no record of this process holds it.
pub(crate) fn api_key(name: &str) -> Option<String> {
    let key = std::env::var(name).ok().map(|key| key.trim().to_owned());
    let key = key.filter(|key| !key.is_empty())?;
    Secrets::note(name, &key);
    Some(key)
}

/// The same of `--api-key-env`.
///
/// # Errors
/// Where there is none.
pub(crate) fn needed_key(variable: &str) -> Result<String> {
    let no_key = || format!("the environment variable {variable} of --api-key-env holds no key");
    api_key(variable).with_context(no_key)
}

/// The name of such a variable; its key is known before a record of the command line begins.
fn key_variable(name: &str) -> Result<String, Infallible> {
    api_key(name);
    Ok(name.to_owned())
}

fn only(url: &str, models: Vec<String>) -> Result<String> {
    match <[String; 1]>::try_from(models) {
        Ok([model]) => Ok(model),
        Err(models) if models.is_empty() => bail!("the server {url} has no model"),
        Err(models) => Err(anyhow!(
            "the server {url} has several models: choose one with --server-model: {}",
            models.join(", ")
        )),
    }
}

fn seconds(text: &str) -> Result<Patience, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Patience::of_seconds(seconds).map_err(|error| error.to_string())
}
