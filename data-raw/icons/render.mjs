// Render the icon sets to build/: one line of tab-separated text and 512 bytes of image for each icon.
// node render.mjs   (after `npm ci` in this folder)

import { createHash } from 'node:crypto'
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { Resvg } from '@resvg/resvg-js'

const SIDE = 32
const SETS = {
  train: ['carbon', 'fluent', 'hugeicons', 'icon-park-outline', 'material-symbols', 'mdi', 'mingcute', 'ph',
    'tabler', 'tdesign', 'uil'],
  brands: ['cib', 'devicon', 'file-icons', 'logos', 'simple-icons', 'skill-icons', 'token', 'vscode-icons'],
  artists: ['bi', 'iconoir', 'ion', 'lucide'],
  medical: ['healthicons']
}
// At most so many icons of each set, in the order of a hash of their names.
const QUOTA = { train: 1950, brands: 900, artists: 1350, medical: 1500 }

const load = (set, file) => JSON.parse(readFileSync(`node_modules/@iconify-json/${set}/${file}.json`, 'utf8'))
const hash = text => createHash('sha256').update(text).digest('hex')

// The caption is the icon's name. Sizes are no part of it: one size of each icon is kept.
function caption (set, name) {
  if (set === 'fluent') {
    if (!name.includes('-24-')) return null
    name = name.replace('-24-', '-')
  }
  if (set === 'healthicons' && name.endsWith('-24px')) return null
  return name.replaceAll('-', ' ').toLowerCase()
}

// 64 x 64 pixels in color on white, averaged to 32 x 32 of darkness 0 to 15, two pixels a byte, left one high.
function render (icon, defaults) {
  const { left = 0, top = 0, width = 16, height = 16, body } = { ...defaults, ...icon }
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000"
    viewBox="${left} ${top} ${width} ${height}" width="${2 * SIDE}" height="${2 * SIDE}">${body}</svg>`
  const options = { background: '#fff', font: { loadSystemFonts: false } }
  const { pixels } = new Resvg(svg, options).render()
  const dark = (row, column) => {
    const at = 4 * (2 * SIDE * row + column)
    return 255 - (0.299 * pixels[at] + 0.587 * pixels[at + 1] + 0.114 * pixels[at + 2])
  }
  const image = Buffer.alloc(SIDE * SIDE / 2)
  for (let row = 0; row < SIDE; row++) {
    for (let column = 0; column < SIDE; column++) {
      const [r, c] = [2 * row, 2 * column]
      const mean = (dark(r, c) + dark(r, c + 1) + dark(r + 1, c) + dark(r + 1, c + 1)) / 4
      image[(SIDE * row + column) >> 1] |= Math.round(mean / 17) << (column % 2 ? 0 : 4)
    }
  }
  return image
}

mkdirSync('build', { recursive: true })
const text = openSync('build/icons.tsv', 'w')
const images = openSync('build/icons.bin', 'w')
const licenses = []
const seen = new Set() // an image that an earlier set holds, to the pixel, is left out of the later ones
for (const [split, sets] of Object.entries(SETS)) {
  for (const set of sets) {
    const { icons, left, top, width, height } = load(set, 'icons')
    const categories = {}
    for (const [category, names] of Object.entries(load(set, 'metadata').categories ?? {})) {
      for (const name of names) categories[name] = category
    }
    const names = Object.keys(icons).filter(name => !icons[name].hidden && caption(set, name) !== null)
    names.sort((a, b) => hash(`${set}:${a}`) < hash(`${set}:${b}`) ? -1 : 1)
    let kept = 0
    for (const name of names) {
      if (kept === QUOTA[split]) break
      const image = render(icons[name], { left, top, width, height })
      const key = image.toString('latin1')
      if (seen.has(key) || image.every(byte => byte === 0)) continue
      seen.add(key)
      kept++
      writeSync(images, image)
      writeSync(text, [split, set, caption(set, name), categories[name] ?? ''].join('\t') + '\n')
    }
    const { name, author, license } = load(set, 'info')
    const { version } = load(set, 'package')
    licenses.push({ split, set, version, name, author: author.name, url: author.url, license: license.spdx, kept })
    console.log(split, set, kept)
  }
}
closeSync(text)
closeSync(images)
writeFileSync('build/licenses.json', JSON.stringify(licenses, null, 1) + '\n')
