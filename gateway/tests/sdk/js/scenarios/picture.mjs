// The README's picture: one chat, in a light and in a dark window. CHROMIUM names the browser, PICTURE the file.

import { Browser } from '../browser.mjs';
import { ADAS_SESSION } from '../support.mjs';

const WINDOW = { width: 1000, height: 690 };
const PHONE = { width: 360, height: 690 };

export default async function picture({ url, environment }) {
  const browser = await Browser.launch(environment.CHROMIUM, url);
  try {
    const open = async (user, options) => {
      const tab = await browser.open(await browser.person(options), user, ADAS_SESSION);
      return tab.status('connected');
    };
    const desktop = await open('Ada', { viewport: WINDOW, colorScheme: 'light' });
    const phone = await open('Anon', { viewport: PHONE, colorScheme: 'dark' });
    await desktop.send('How does a message get from PostgreSQL to this page?');
    await desktop.page.locator('.mine[data-state=stored]', { hasText: 'How does a message' }).waitFor();
    await desktop.at('ask-bot').click();
    await desktop.send('And who decides that I may see it?');
    await desktop.page.locator('.bot[data-state=stored]').last().waitFor();
    await phone.page.waitForFunction(() => !document.querySelector('[data-state=streaming], [data-state=done]'));
    await phone.online(['Ada', 'Anon']);
    await phone.at('composer').pressSequentially('Hi');
    await desktop.says('typing', /^Anon is typing$/);
    const shots = await Promise.all([desktop, phone].map((tab) => tab.page.screenshot({ animations: 'disabled', caret: 'hide' })));
    await sideBySide(browser, shots, environment.PICTURE);
  } finally {
    await browser.close();
  }
}

async function sideBySide(browser, shots, path) {
  const sheet = await browser.blank({ viewport: { width: 1440, height: 760 } });
  const images = shots.map((shot) => `<img src="data:image/png;base64,${shot.toString('base64')}">`);
  await sheet.setContent(`<style>
    body { margin: 0; height: 100vh; display: flex; gap: 24px; align-items: center; justify-content: center; background: #dfe5e4 }
    img { border-radius: 14px; box-shadow: 0 1px 3px #0002, 0 12px 32px #0002 }
  </style>${images.join('')}`);
  await sheet.screenshot({ path });
}
