//! Searches, and who sees the password.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use crate::{Credentials, Registry, settings};

/// Refuses every TLS greeting in the words of TLS (RFC 8446, 6), answers whatever else comes, and tells of that.
fn refuses_tls() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, (told, seen)) = (listener.local_addr().unwrap().to_string(), mpsc::channel());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut bytes = vec![0; 4096];
            let count = stream.read(&mut bytes).unwrap_or_default();
            let answer: &[u8] = match bytes[0] {
                22 => &[21, 3, 3, 0, 2, 2, 40],
                _ => {
                    // The test may be over.
                    let _ = told.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
                }
            };
            stream.write_all(answer).unwrap();
        }
    });
    (host, seen)
}

#[tokio::test]
async fn a_search_does_not_leave_tls_where_somebody_speaks_it() {
    let (host, seen) = refuses_tls();
    let me = Credentials::Basic { username: "me".into(), password: "secret".into() };
    let refused = Registry::new(settings()).search(Some(&host), "x", 1, me).await.unwrap_err();
    let said = errdefs::chain(&refused);
    assert!(said.starts_with(&format!("Get \"https://{host}/v1/_ping\": tls: ")), "{said}");
    assert_eq!(seen.try_recv().ok(), None, "asked without TLS");
}
