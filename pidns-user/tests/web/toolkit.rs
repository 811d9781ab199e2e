//! Checks the example in docs/web.md with the server and with promtool.

use std::{fs, path::Path, process::Command};

use pidns_user::web::{Limits, Server};

use crate::{
    fixture::{Folder, options},
    tls::Authority,
};

/// The example configuration in docs/web.md.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/web.md");
    let document = fs::read_to_string(path).expect("read docs/web.md");
    let (_, rest) = document.split_once("```yaml\n").expect("docs/web.md has an example in YAML");
    rest.split_once("```").expect("the example ends").0.to_owned()
}

/// The example and its files, which it names in its own directory.
fn folder() -> Folder {
    let authority = Authority::new();
    let folder = Folder::with(&example());
    let server = authority.server();
    folder.write("server.crt", &server.cert);
    folder.write("server.key", &server.key);
    folder.write("clients.crt", &authority.cert.pem());
    folder
}

#[test]
fn the_server_accepts_the_documented_example() {
    Server::bind(options(Some(folder().path("web.yml")), Limits::default())).unwrap();
}

#[test]
fn promtool_accepts_the_documented_example() {
    let folder = folder();
    let output = match Command::new("promtool")
        .args(["check", "web-config"])
        .arg(folder.path("web.yml"))
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            eprintln!(
                "skipped 1 check: promtool does not start ({error}); it is in the Debian package prometheus"
            );
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
