#!/usr/bin/env node
// Draws a plain text transcript of a terminal as an SVG picture. The same text gives the same bytes.
//
//   node tools/terminal-svg.mjs transcript.txt ["TITLE"] > docs/images/terminal.svg       ("-" reads standard input)
//
// Lines that start with `$ ` are prompts (and those ending in `\` go on), `> ` a chat's prompt, `# ` remarks; all others are
// output. Escape sequences are dropped, tabs become spaces, lines past the width are folded. One column per character.
import { readFileSync } from 'node:fs';

const columnsMax = 110;
const columnsMin = 60;
const linesMax = 200;
const charWidth = 8.4;  // of a 14 px monospace font; textLength below holds every font to it
const lineHeight = 20;
const margin = 20;
const barHeight = 36;
const colors = {
  window: '#0d1117', bar: '#161b22', border: '#30363d', title: '#8b949e',
  output: '#c9d1d9', prompt: '#3fb950', command: '#f0f6fc', chat: '#d2a8ff', remark: '#8b949e',
};

const escapeXml = (text) => text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const px = (value) => String(Math.round(value * 10) / 10);

function clean(line) {
  const shown = line.replace(/\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07)/g, '').replace(/^.*\r(?=.)/, '').replace(/\r$/, '');
  let out = '';
  for (const c of shown) out += c === '\t' ? ' '.repeat(8 - ([...out].length % 8)) : c < ' ' || c === '\x7f' ? '' : c;
  return out.trimEnd();
}

// A line as runs {text, color}; a command that was continued on the line before stays a command.
function paint(line, continued) {
  if (continued) return [{ text: line, color: colors.command, bold: true }];
  if (line.startsWith('$ ')) return [{ text: '$ ', color: colors.prompt, bold: true }, { text: line.slice(2), color: colors.command, bold: true }];
  if (line.startsWith('> ')) return [{ text: '> ', color: colors.chat, bold: true }, { text: line.slice(2), color: colors.command, bold: true }];
  return [{ text: line, color: line.startsWith('# ') ? colors.remark : colors.output }];
}

// Rows of at most columnsMax characters.
function fold(runs) {
  const rows = [[]];
  let used = 0;
  for (const run of runs) {
    for (let rest = [...run.text]; rest.length > 0; ) {
      if (used === columnsMax) {
        rows.push([]);
        used = 0;
      }
      const part = rest.splice(0, columnsMax - used);
      rows.at(-1).push({ ...run, text: part.join(''), column: used, length: part.length });
      used += part.length;
    }
  }
  return rows;
}

function textOf(run, y) {
  const indent = [...run.text].findIndex((c) => c !== ' ');
  if (indent < 0) return '';
  const x = margin + (run.column + indent) * charWidth;
  const text = [...run.text].slice(indent).join('').trimEnd();
  const width = [...text].length * charWidth;
  const weight = run.bold ? ' font-weight="600"' : '';
  return `<text x="${px(x)}" y="${y}" fill="${run.color}"${weight} textLength="${px(width)}" lengthAdjust="spacingAndGlyphs">${escapeXml(text)}</text>\n`;
}

function draw(transcript, title) {
  const lines = transcript.replace(/\n+$/, '').split('\n').map(clean);
  const rows = lines.flatMap((line, i) => fold(paint(line, continues(lines, i))));
  if (rows.length > linesMax) throw new Error(`${rows.length} lines are more than a picture holds (${linesMax})`);
  const columns = Math.max(columnsMin, ...rows.map((row) => row.reduce((sum, run) => sum + run.length, 0)));
  const width = px(columns * charWidth + 2 * margin);
  const height = barHeight + rows.length * lineHeight + 2 * margin - 4;
  const dots = ['#ff5f57', '#febc2e', '#28c840'].map((fill, i) => `<circle cx="${margin + 2 + i * 20}" cy="18" r="6" fill="${fill}"/>`);
  const body = rows.map((row, i) => row.map((run) => textOf(run, barHeight + margin + 10 + i * lineHeight)).join('')).join('');
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeXml(title)}">
<title>${escapeXml(title)}</title>
<rect x="0.5" y="0.5" width="${px(width - 1)}" height="${height - 1}" rx="10" fill="${colors.window}" stroke="${colors.border}"/>
<path d="M1 ${barHeight}V11A10 10 0 0 1 11 1H${px(width - 11)}A10 10 0 0 1 ${px(width - 1)} 11V${barHeight}Z" fill="${colors.bar}"/>
${dots.join('')}
<text x="${px(width / 2)}" y="23" fill="${colors.title}" font-family="system-ui, sans-serif" font-size="13" text-anchor="middle">${escapeXml(title)}</text>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" xml:space="preserve">
${body}</g>
</svg>
`;
}

// Whether line i belongs to a command that began above it.
function continues(lines, i) {
  let first = i;
  while (first > 0 && lines[first - 1].endsWith('\\')) first -= 1;
  return first < i && lines[first].startsWith('$ ');
}

const [path, title = 'capstan'] = process.argv.slice(2);
if (path === undefined) {
  console.error('usage: node tools/terminal-svg.mjs transcript.txt ["TITLE"] > picture.svg');
  process.exit(2);
}
process.stdout.write(draw(readFileSync(path === '-' ? 0 : path, 'utf8'), title));
