"""A proxy in front of Kinesis and DynamoDB that writes down who called what on which table or stream."""

import http.client
import http.server
import json
import threading
import urllib.parse


class Recorder:
    """Passes requests on. Each caller (a worker, an operator) gets addresses of its own, and a set of calls.

    A call is (service, operation, name of the table or stream)."""

    def __init__(self, kinesis_url, dynamodb_url):
        self.backends = {"kinesis": kinesis_url, "dynamodb": dynamodb_url}
        self.calls = {}
        self.lock = threading.Lock()
        self.streams = {}
        self.servers = []

    def addresses(self, caller):
        """Where this caller finds Kinesis and DynamoDB."""
        self.calls.setdefault(caller, set())
        return tuple(self._serve(caller, service) for service in ("kinesis", "dynamodb"))

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def _serve(self, caller, service):
        recorder, backend = self, urllib.parse.urlparse(self.backends[service]).netloc

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                connection = http.client.HTTPConnection(backend, timeout=60)
                connection.request("POST", self.path, body, dict(self.headers))
                answer = connection.getresponse()
                text = answer.read()
                recorder.note(caller, service, self.headers, body, text)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                connection.close()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """Callers that are killed leave their connections open."""

        server = Server(("127.0.0.1", 0), Handler)
        self.servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    def note(self, caller, service, headers, body, answer):
        operation = headers["x-amz-target"].split(".")[1]
        names = self._stream(body, answer) if service == "kinesis" else tables(body)
        with self.lock:
            self.calls[caller].update((service, operation, name) for name in names)

    def _stream(self, body, answer):
        """Iterators and tokens stand for the stream that they were given out for."""
        request, answer = json.loads(body), json.loads(answer)
        token = request.get("ShardIterator") or request.get("NextToken")
        name = request.get("StreamName") or self.streams.get(token)
        for key in ("ShardIterator", "NextShardIterator", "NextToken"):
            if answer.get(key):
                self.streams[answer[key]] = name
        return [name]


def tables(body):
    request = json.loads(body)
    return list(request["RequestItems"]) if "RequestItems" in request else [request["TableName"]]
