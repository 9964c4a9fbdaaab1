// Arguments: the CA, then pairs of chain and host name. Prints the chains that a TLS client of this Node accepts.
const fs = require("node:fs");
const net = require("node:net");
const tls = require("node:tls");

const [, , ca, ...rest] = process.argv;

function accepted(chain, host) {
  return new Promise((resolve) => {
    const server = tls.createServer({ cert: fs.readFileSync(chain), key: fs.readFileSync(chain.replace(/pem$/, "key")) });
    server.on("tlsClientError", () => {});
    server.listen(0, "127.0.0.1", () => {
      const options = { host: "127.0.0.1", port: server.address().port, ca: fs.readFileSync(ca) };
      if (!net.isIP(host)) options.servername = host;
      options.checkServerIdentity = (_, certificate) => tls.checkServerIdentity(host, certificate);
      const client = tls.connect(options);
      const end = (answer) => {
        client.destroy();
        server.close();
        resolve(answer);
      };
      client.on("secureConnect", () => end(true));
      client.on("error", () => end(false));
    });
  });
}

(async () => {
  for (let index = 0; index < rest.length; index += 2) {
    if (await accepted(rest[index], rest[index + 1])) console.log(rest[index]);
  }
})();
