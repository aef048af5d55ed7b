"""A Git server over HTTPS for tests: git's own http-backend as CGI behind Python's TLS.

Usage: https_server.py ROOT CERTIFICATE KEY TOKEN_FILE
Prints the port it listens on. Asks for the password that stands in TOKEN_FILE now, when that is not empty.
`/redirect/…` sends to another host name, `/slow/…` with a byte now and then.
"""
import base64, http.server, os, ssl, subprocess, sys, time

root, certificate, key, token_file = sys.argv[1:5]
backend = os.path.join(subprocess.check_output(["git", "--exec-path"], text=True).strip(), "git-http-backend")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_):
        pass

    def allowed(self):
        token = open(token_file).read().strip()
        if not token:
            return True
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        return kind == "Basic" and base64.b64decode(given).decode().partition(":")[2] == token

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, code, headers, data):
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def serve(self):
        body = self.body()
        path, _, query = self.path.partition("?")
        if path.startswith("/redirect/"):
            elsewhere = "https://127.0.0.1:%d%s" % (self.server.server_address[1], self.path[9:])
            return self.answer(302, [("Location", elsewhere)], b"")
        if path.startswith("/slow/"):
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.send_header("Content-Length", "1028")
            self.end_headers()
            for byte in b"001e# service=git-upload-pack\n000003e8" + b"0" * 990:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.1)
            return None
        if not self.allowed():
            return self.answer(401, [("WWW-Authenticate", 'Basic realm="git"')], b"")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        output = subprocess.run([backend], input=body, env=environment, stdout=subprocess.PIPE).stdout
        head, _, data = output.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if ": " in line]
        code = next((int(v.split()[0]) for n, v in headers if n.lower() == "status"), 200)
        return self.answer(code, [h for h in headers if h[0].lower() not in ("status", "content-length")], data)

    do_GET = do_POST = serve


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
