//! CONNECT: the way of `HTTPS_PROXY` (RFC 9110 section 9.3.6).
//!
//! Decides before anything is dialled, and dials before it grants, so that the app hears of every
//! failure in HTTP. A signed host is not dialled at all: its requests will be. Refuses CONNECT inside
//! a CONNECT.

use std::net::SocketAddr;

use ::http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade;

use super::arrival::{Arrival, Next};
use super::route::Way;
use super::{Config, Egress, Tunnels};
use crate::exchange::{Code, Exchange, Fault, UNMATCHED, Verdict};
use crate::http::body::{Body, full};
use crate::upstream::Host;
use crate::upstream::origin::split;

/// Answers a CONNECT and leaves in `arrival` what is to follow.
pub async fn grant(
    egress: &Egress,
    config: &Config,
    exchange: &mut Exchange,
    mut request: Request<Incoming>,
    arrival: &Arrival,
) -> Result<Response<Body>, Fault> {
    if !arrival.is_to_proxy() || request.version() == Version::HTTP_2 {
        return Err(malformed("CONNECT inside a connection to a gateway"));
    }
    if !request.body().is_end_stream() {
        return Err(malformed("CONNECT has no body (RFC 9110 section 9.3.6)"));
    }
    let (host, port) = destination(request.uri())?;
    match config.routes.way(&host, port)? {
        Way::Inside(route) => {
            exchange.on_route(&route.name);
            let upgrade = upgrade::on(&mut request);
            arrival.then(Next::Inside(upgrade, host));
        }
        Way::Through => {
            exchange.on_route(UNMATCHED);
            config.tunnel.refuse_port(&host, port)?;
            refuse_ourselves(&host, port, arrival.local)?;
            let place = egress.place()?;
            let dialled = exchange.away(egress.upstream.dial(&host, port)).await?;
            let upgrade = upgrade::on(&mut request);
            arrival.then(Next::Through(upgrade, dialled, (host, port), place));
        }
    }
    exchange.judged(Verdict::Connected, None);
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// Host and port of the target, which is nothing but these (RFC 9112 section 3.2.3).
fn destination(target: &Uri) -> Result<(Host, u16), Fault> {
    let authority = target
        .authority()
        .filter(|_| target.scheme().is_none() && target.path_and_query().is_none())
        .ok_or_else(|| malformed("the target of CONNECT must be host:port"))?;
    match split(authority).map_err(|error| malformed(error.to_string()))? {
        (host, Some(port)) => Ok((host, port)),
        (host, None) => Err(malformed(format!(
            "the target of CONNECT needs a port, like {host}:443"
        ))),
    }
}

/// By our own name the loop shows even where the name does not resolve to our address.
fn refuse_ourselves(host: &Host, port: u16, local: SocketAddr) -> Result<(), Fault> {
    if port == local.port() && host.as_str() == "localhost" {
        let text = "the destination is this sidecar itself";
        return Err(Fault::not_sent(Code::LoopDetected, text));
    }
    Ok(())
}

fn malformed(text: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::not_sent(Code::RequestMalformed, text)
}

impl Tunnels {
    /// Refuses ports that tunnels may not lead to.
    fn refuse_port(&self, host: &Host, port: u16) -> Result<(), Fault> {
        match &self.ports {
            Some(ports) if !ports.contains(&port) => {
                let text = format!("{host}:{port}: egress.tunnel.ports does not name that port");
                Err(Fault::not_sent(Code::HostNotAllowed, text))
            }
            _ => Ok(()),
        }
    }
}
