//! The SVID from a Workload API: a small one that speaks gRPC by hand over a Unix socket.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use crate::harness::World;
use crate::rotation::{becomes, upstream};
use crate::side::{Side, files, place, program, untouched};

/// A field of a protobuf message that has a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(bytes);
    out
}

/// `X509SVIDResponse` with an agent's SVID, as one message of gRPC.
fn svid_of(world: &World, agent: &str) -> Bytes {
    let files = files(world, agent);
    let der = |path: &str| CertificateDer::from_pem_file(path).unwrap();
    let key = PrivateKeyDer::from_pem_file(&files[3]).unwrap();
    let svid = [
        field(1, format!("spiffe://example.org/agent/{agent}").as_bytes()),
        field(2, &der(&files[1])),
        field(3, key.secret_der()),
        field(4, &der(&files[5])),
    ]
    .concat();
    let message = field(1, &svid);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat().into()
}

struct Messages(mpsc::Receiver<Bytes>);

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A Workload API that gives what it is told to give, and each change of it.
async fn workload_api(socket: &Path, gives: watch::Receiver<Bytes>) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let gives = gives.clone();
            let service = service_fn(move |request| answer(request, gives.clone()));
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
        }
    });
}

async fn answer(
    request: Request<Incoming>,
    mut gives: watch::Receiver<Bytes>,
) -> Result<Response<Messages>, Infallible> {
    let (sender, receiver) = mpsc::channel(1);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    // What keeps a web page from the real one [SPIFFE Workload Endpoint §6.2].
    let is_workload = request.headers().get("workload.spiffe.io").is_some_and(|value| value == "true");
    if is_workload && request.uri().path() == "/SpiffeWorkloadAPI/FetchX509SVID" {
        tokio::spawn(async move {
            loop {
                let message = gives.borrow_and_update().clone();
                if sender.send(message).await.is_err() || gives.changed().await.is_err() {
                    return;
                }
            }
        });
    } else {
        headers.insert("grpc-status", "12".parse().unwrap());
    }
    let mut response = Response::new(Messages(receiver));
    *response.headers_mut() = headers;
    Ok(response)
}

#[tokio::test]
async fn the_workload_api_gives_the_svid_and_its_successor() {
    let world = World::odd(upstream().await, "", "").await;
    let (give, gives) = watch::channel(svid_of(&world, "support"));
    let socket = world.dir.join("api.sock");
    workload_api(&socket, gives).await;
    let identity = ["--workload-api".to_owned(), format!("unix://{}", socket.display())];
    let side = Side::with(&world, "odd", &identity, &["--listen", "127.0.0.1:0", "--no-local-auth"]).await;
    becomes(&world, &side, "support").await;
    let mut stream = side.begin(&format!("GET /v1/events HTTP/1.1\r\nhost: {}", side.host()), "").await;
    stream.until("data: first").await;

    give.send(svid_of(&world, "other")).unwrap();
    becomes(&world, &side, "other").await;
    world.odd.go_on();
    assert!(stream.rest().await.ends_with("0\r\n\r\n"));
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn the_environment_may_say_where_the_workload_api_is() {
    let world = World::start().await;
    let (_give, gives) = watch::channel(svid_of(&world, "support"));
    let socket = world.dir.join("api.sock");
    workload_api(&socket, gives).await;
    let arguments = [place(&world, "mail"), vec!["--stdio".to_owned()]].concat();
    let mut command = program(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display()));
    // Standard input is empty, so it ends as soon as it has its SVID.
    let ended = tokio::time::timeout(crate::side::SOON, command.output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    untouched(world).await;
}
