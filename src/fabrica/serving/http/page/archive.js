// Zip archives whose members are stored as they are: read, and written anew with some of them.

const LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50;

/** The members of an archive: [{name, crc, content: Uint8Array}, ...]. */
export function members(buffer) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("the answer is no zip archive");
  const found = [];
  let at = view.getUint32(end + 16, true);
  for (let k = view.getUint16(end + 10, true); k > 0; k--) {
    if (view.getUint32(at, true) !== CENTRAL || view.getUint16(at + 10, true) !== 0) throw new Error("the answer is packed");
    const [names, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, names));
    const size = view.getUint32(at + 24, true), local = view.getUint32(at + 42, true);
    const begin = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    found.push({ name, crc: view.getUint32(at + 16, true), content: new Uint8Array(buffer, begin, size) });
    at += 46 + names + extra + comment;
  }
  return found;
}

/** An archive of these members, as a Blob. */
export function packed(chosen) {
  const parts = [], central = [];
  let at = 0;
  for (const { name, crc, content } of chosen) {
    const bytes = new TextEncoder().encode(name);
    const local = header(30, LOCAL, crc, content.length, bytes.length);
    const entry = header(46, CENTRAL, crc, content.length, bytes.length);
    new DataView(entry.buffer).setUint32(42, at, true);
    parts.push(local, bytes, content);
    central.push(entry, bytes);
    at += local.length + bytes.length + content.length;
  }
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, END, true);
  end.setUint16(8, chosen.length, true);
  end.setUint16(10, chosen.length, true);
  end.setUint32(12, central.reduce((sum, part) => sum + part.length, 0), true);
  end.setUint32(16, at, true);
  return new Blob([...parts, ...central, end.buffer], { type: "application/zip" });
}

/** A local or a central header, which have the same fields from the version needed on. */
function header(size, signature, crc, length, names) {
  const view = new DataView(new ArrayBuffer(size)), from = size === 46 ? 6 : 4;
  view.setUint32(0, signature, true);
  if (size === 46) view.setUint16(4, 20, true);
  view.setUint16(from, 20, true);
  view.setUint16(from + 2, 0x0800, true); // names are UTF-8
  view.setUint16(from + 8, 0x21, true); // 1 January 1980
  view.setUint32(from + 10, crc, true);
  view.setUint32(from + 14, length, true);
  view.setUint32(from + 18, length, true);
  view.setUint16(from + 22, names, true);
  return new Uint8Array(view.buffer);
}
