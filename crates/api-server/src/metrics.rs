//! Metrics: a server of its own, which answers one path and nothing else of the API.

use std::convert::Infallible;
use std::time::Duration;

use engine::Engine;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tracing::debug;

use crate::response::{self, Answer};

/// How long a connection may be silent: scrapers come back within a minute or open another one.
const SILENCE: Duration = Duration::from_secs(300);

/// Serves figures over one connection until the client goes away.
pub async fn serve(engine: Engine, client: TcpStream) {
    let service = service_fn(|request| {
        let engine = engine.clone();
        async move { Ok::<_, Infallible>(answer(&engine, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .serve_connection(TokioIo::new(client), service);
    // A scraper that goes away is no event.
    if let Err(err) = connection.await {
        debug!("metrics: {}", errdefs::chain(&err));
    }
}

async fn answer(engine: &Engine, request: &Request<Incoming>) -> Answer {
    if request.uri().path() != "/metrics" {
        return response::text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    let mut page = response::text(StatusCode::OK, engine::ops::metrics::page(engine).await);
    let form = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    page.headers_mut().insert(http::header::CONTENT_TYPE, form);
    page
}
