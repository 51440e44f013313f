use std::process::{Command, Output};

use tokio::net::UnixListener;

use super::*;

/// Makes a key with OpenSSH's own program.
fn made(directory: &Path, name: &str, flags: &str, password: &str) -> PathBuf {
    let path = directory.join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", password, "-f"]).arg(&path).args(flags.split(' '));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{flags}: {output:?}");
    path
}

/// Runs one of OpenSSH's programs with an agent of ours.
async fn asked(directory: &Path, agent: Agent, program: &'static str, arguments: Vec<PathBuf>) -> Output {
    let Agent::Keys(keys) = agent else { panic!("{agent:?} are no keys") };
    let socket = directory.join("socket");
    // It may be there from the one before.
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(keys.clone(), stream));
        }
    });
    let run = move || Command::new(program).args(arguments).env("SSH_AUTH_SOCK", socket).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    serving.abort();
    output
}

/// Has a file signed by an agent of ours, and looks whether the signature is right.
async fn signs(directory: &Path, keys: &[PathBuf], public: &Path) -> Result<(), Output> {
    // The private half must not stand beside it.
    let place = tempfile::tempdir_in(directory).unwrap();
    let (public_here, file) = (place.path().join("public"), place.path().join("file"));
    fs::copy(public, &public_here).unwrap();
    fs::write(&file, "what is signed").unwrap();
    let words = ["-Y", "sign", "-n", "test", "-f"].map(PathBuf::from).into_iter();
    let arguments = words.chain([public_here, file.clone()]).collect();
    let signed = asked(directory, Agent::open(keys).unwrap(), "ssh-keygen", arguments).await;
    if !signed.status.success() {
        return Err(signed);
    }
    let mut check = Command::new("ssh-keygen");
    check.args(["-Y", "check-novalidate", "-n", "test", "-s"]).arg(place.path().join("file.sig"));
    let checked = check.stdin(File::open(&file).unwrap()).output().unwrap();
    if checked.status.success() { Ok(()) } else { Err(checked) }
}

#[tokio::test]
async fn keys_of_files_sign_for_openssh() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut all = Vec::new();
    for (name, flags) in [
        ("ed25519", "-t ed25519"),
        ("rsa", "-t rsa -b 2048"),
        ("rsa-3072", "-t rsa -b 3072"),
        ("p256", "-t ecdsa -b 256"),
        ("p384", "-t ecdsa -b 384"),
        ("rsa-pem", "-t rsa -b 2048 -m PEM"),
        ("p256-pem", "-t ecdsa -b 256 -m PEM"),
        ("p384-pem", "-t ecdsa -b 384 -m PEM"),
        ("rsa-pkcs8", "-t rsa -b 2048 -m PKCS8"),
        ("p256-pkcs8", "-t ecdsa -b 256 -m PKCS8"),
    ] {
        let key = made(at, name, flags, "");
        let signed = signs(at, std::slice::from_ref(&key), &key.with_extension("pub")).await;
        assert!(signed.is_ok(), "{name}: {signed:?}");
        all.push(key);
    }
    let listed = asked(at, Agent::open(&all).unwrap(), "ssh-add", vec!["-L".into()]).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    let listed: Vec<&str> = listed.lines().map(str::trim_end).collect();
    let wanted: Vec<String> = all.iter().map(|key| fs::read_to_string(key.with_extension("pub")).unwrap()).collect();
    let wanted: Vec<&str> = wanted.iter().map(|text| text.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(listed, wanted);
    // Nobody adds one, or takes one away.
    for arguments in [vec!["-q".into(), all[0].clone()], vec!["-q".into(), "-D".into()]] {
        let refused = asked(at, Agent::open(&all[..1]).unwrap(), "ssh-add", arguments).await;
        assert!(!refused.status.success(), "{refused:?}");
    }
    let other = made(at, "other", "-t ed25519", "");
    assert!(signs(at, &all, &other.with_extension("pub")).await.is_err());
}

#[test]
fn what_is_no_key_is_refused_as_buildx_does() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let key = made(at, "key", "-t ed25519", "");
    let socket = at.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::write(at.join("text"), "text\n").unwrap();
    let whole = fs::read_to_string(&key).unwrap();
    let (begin, rest) = whole.split_once('\n').unwrap();
    let cut = format!("{begin}\n{}\n-----END OPENSSH PRIVATE KEY-----\n", &rest[..64]);
    fs::write(at.join("cut"), cut).unwrap();
    let why = |paths: &[&Path]| {
        let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).to_owned()).collect();
        let why = errdefs::chain(&Agent::open(&paths).unwrap_err());
        why.replace(&format!("{}/", at.display()), "")
    };
    let locked = |name: &str, flags: &str| made(at, name, flags, "password");
    for (path, wanted) in [
        (locked("enc", "-t ed25519"), "failed to parse enc: ssh: this private key is passphrase protected"),
        (locked("pem", "-t rsa -m PEM"), "failed to parse pem: ssh: this private key is passphrase protected"),
        (
            locked("pk", "-t rsa -b 2048 -m PKCS8"),
            "failed to parse pk: ssh: unsupported key type \"ENCRYPTED PRIVATE KEY\"",
        ),
        (at.join("text"), "failed to parse text: ssh: no key found"),
        (key.with_extension("pub"), "failed to parse key.pub: ssh: no key found"),
        (at.join("none"), "stat none: no such file or directory"),
        (
            made(at, "p521", "-t ecdsa -b 521", ""),
            "failed to parse p521: keys of type ecdsa-sha2-nistp521 are not supported here: add it to an agent",
        ),
    ] {
        assert_eq!(why(&[&path]), wanted);
    }
    assert!(why(&[&at.join("cut")]).starts_with("failed to parse cut: the key is damaged"));
    assert_eq!(why(&[&socket, &key]), "only single socket allowed");
    assert_eq!(why(&[&key, &socket]), "invalid combination of keys and sockets");
    assert_eq!(Agent::open(std::slice::from_ref(&socket)).unwrap(), Agent::Socket(socket));
    // Whatever is asked, it is answered or refused.
    let Agent::Keys(keys) = Agent::open(&[key]).unwrap() else { panic!("no keys") };
    for question in [&[][..], &[13], &[13, 0, 0, 0, 9, 1], &[13, 0xff, 0xff, 0xff, 0xff], &[200]] {
        assert_eq!(answer(&keys, question), None);
    }
}
