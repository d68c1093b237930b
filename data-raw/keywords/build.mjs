// Write balance/datasets/data/keywords.txt: the English names and keywords of emoji, one a line.
// node build.mjs   (after `npm install` in this folder)

import { readFileSync, writeFileSync } from 'node:fs'

const COMPONENT = 2 // the group of skin tones and hair styles, which are parts of emoji

const load = file => JSON.parse(readFileSync(`node_modules/${file}.json`, 'utf8'))
const bare = emoji => emoji.replaceAll('\uFE0F', '') // packages differ in whether they ask for the colored form

const emoji = load('emojibase-data/en/data').filter(({ group }) => group !== undefined && group !== COMPONENT)
const known = new Set(emoji.map(entry => bare(entry.emoji)))
const { annotations } = load('cldr-annotations-full/annotations/en/annotations').annotations
const annotated = Object.entries(annotations).filter(([key]) => known.has(bare(key))).map(([, value]) => value)

const found = [
  ...emoji.flatMap(({ label, tags = [] }) => [label, ...tags]),
  ...annotated.flatMap(({ default: tags = [], tts = [] }) => [...tts, ...tags]),
  ...Object.values(load('emojilib/dist/emoji-en-US')).flat()
]
const spaced = entry => entry.replace(/[,.;:?!`]/g, ' $& ').replace(/\s+/g, ' ').trim() // as the matching sees it
const entries = found.map(entry => entry.toLowerCase().replaceAll('_', ' ').trim()).filter(entry => entry)
const keywords = new Map(entries.sort().reverse().map(entry => [spaced(entry), entry]))
writeFileSync('../../balance/datasets/data/keywords.txt', [...keywords.values()].sort().join('\n') + '\n')
console.log(keywords.size, 'keywords')
