// Read or write streams with a codec of JavaScript's: node streams.mjs CODEC read|write CONTAINER [LEVEL]
// stdin: a JSON list of base64 texts; stdout: the same list, decompressed or compressed.
import * as fflate from "fflate";

const [codec, direction, container, level] = process.argv.slice(2);

const FFLATE = {
  read: { gzip: fflate.gunzipSync, zlib: fflate.unzlibSync, deflate: fflate.inflateSync },
  write: { gzip: fflate.gzipSync, zlib: fflate.zlibSync, deflate: fflate.deflateSync },
};
const FORMATS = { gzip: "gzip", zlib: "deflate", deflate: "deflate-raw" };

async function web(bytes) {
  const Transform = direction === "read" ? DecompressionStream : CompressionStream;
  const transformed = new Blob([bytes]).stream().pipeThrough(new Transform(FORMATS[container]));
  return new Uint8Array(await new Response(transformed).arrayBuffer());
}

const convert = {
  fflate: (bytes) => FFLATE[direction][container](bytes, direction === "write" ? { level: Number(level) } : {}),
  web,
}[codec];

const texts = [];
for await (const text of process.stdin) texts.push(text);
const converted = [];
for (const text of JSON.parse(Buffer.concat(texts).toString())) {
  const bytes = await convert(new Uint8Array(Buffer.from(text, "base64")));
  converted.push(Buffer.from(bytes).toString("base64"));
}
process.stdout.write(JSON.stringify(converted));
