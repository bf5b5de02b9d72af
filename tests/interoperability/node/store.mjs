// Read a zarr array with zarrita and print its elements' bytes in base64: node store.mjs FOLDER
import FileSystemStore from "@zarrita/storage/fs";
import * as zarr from "zarrita";

const array = await zarr.open(new FileSystemStore(process.argv[2]), { kind: "array" });
const { data } = await zarr.get(array);
process.stdout.write(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64"));
