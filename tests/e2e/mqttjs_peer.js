// Publishes a file or prints what arrives, with MQTT.js. See peers.py for the options and the lines it prints.
'use strict'

const fs = require('fs')
const mqtt = require('mqtt')

const options = { carrier: 'tcp', qos: '0', count: '1' }
const words = process.argv.slice(3)
while (words.length > 0) {
  const name = words.shift().replace(/^--/, '')
  options[name] = ['retain', 'persistent'].includes(name) ? true : words.shift()
}
const action = process.argv[2]
const scheme = { tcp: options.tls ? 'mqtts' : 'mqtt', ws: options.tls ? 'wss' : 'ws' }[options.carrier]
const tls = {}
if (options.tls) {
  const version = options.tls === 'tls1.2' ? 'TLSv1.2' : 'TLSv1.3'
  Object.assign(tls, { ca: fs.readFileSync(options.ca), minVersion: version, maxVersion: version })
}
if (options.cert) Object.assign(tls, { cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key) })
const path = options.carrier === 'ws' ? '/mqtt' : ''
const client = mqtt.connect(`${scheme}://localhost:${options.port}${path}`, {
  ...tls,
  wsOptions: tls,
  reconnectPeriod: 0,
  connectTimeout: 15000,
  protocolVersion: Number(options.version || 4),
  clean: !options.persistent,
  ...(options.persistent && options.version === '5' ? { properties: { sessionExpiryInterval: 600 } } : {}),
  ...(options['will-topic'] ? { will: { topic: options['will-topic'], payload: options['will-payload'], qos: 1 } } : {}),
  ...(options.id ? { clientId: options.id } : {})
})

function fail (error) {
  console.log(`refused: ${error.message}`)
  process.exit(1)
}

const qos = Number(options.qos)
let left = Number(options.count)
client.on('error', fail)
client.on('connect', (connack) => {
  if (action === 'pub') {
    const payload = options.file ? fs.readFileSync(options.file) : Buffer.alloc(0)
    client.publish(options.topic, payload, { qos, retain: Boolean(options.retain) }, (error) => {
      if (error) fail(error)
      client.end(false, () => process.exit(0))
    })
  } else if (connack.sessionPresent) {
    console.log('READY')
  } else {
    client.subscribe(options.topic, { qos }, (error) => { if (error) fail(error) })
  }
})
// Not in the callback above: a message that came together with SUBACK would be printed before it.
client.on('packetreceive', (packet) => {
  if (packet.cmd === 'suback' && packet.granted.every((code) => code < 128)) console.log('READY')
})
// Ends only when the last message is printed whole and acknowledged, or it would be sent again to the next connection.
let printed = 0
let unacknowledged = 0
const finish = () => {
  if (left === 0 && printed === Number(options.count) && unacknowledged === 0) client.end(false, () => process.exit(0))
}
client.on('message', (topic, payload, packet) => {
  left -= 1
  if (packet.qos > 0) unacknowledged += 1
  const line = `MESSAGE ${topic} ${packet.qos} ${packet.retain ? 1 : 0} ${payload.toString('hex')}\n`
  process.stdout.write(line, () => { printed += 1; finish() })
})
client.on('packetsend', (packet) => {
  if (action !== 'sub' || !['puback', 'pubcomp'].includes(packet.cmd)) return
  unacknowledged -= 1
  setImmediate(finish)
})
client.on('close', () => { if (left > 0 && action === 'sub') fail(new Error('the connection was closed')) })
