// All of them: `node test/unit/index.mjs`, after `tsc`.

import './delivery.test.mjs'
import './positions.test.mjs'
import './storage.test.mjs'
