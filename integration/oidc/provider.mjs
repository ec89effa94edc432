// A real OpenID provider on 127.0.0.1 that lets anybody log in under any name, for tests alone.
// Its only argument is JSON: {port, console, client_id, client_secret, audience}.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The package is installed outside the checkout.
const found = createRequire(`${process.env.OIDC_MODULES}/`).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(found));
const told = JSON.parse(process.argv[2]);

const provider = new Provider(`http://127.0.0.1:${told.port}`, {
  clients: [
    {
      client_id: told.client_id,
      client_secret: told.client_secret,
      redirect_uris: [`${told.console}/login/callback`],
    },
    {
      client_id: 'cli',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/back'],
    },
  ],
  features: {
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'console',
        audience: told.audience,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  // When and how somebody was authenticated, which RFC 9068 lets an access token say.
  extraTokenClaims: (ctx) => ({ auth_time: ctx.oidc.entities.AuthorizationCode?.authTime }),
  // Nobody is asked whether they consent.
  async loadExistingGrant(ctx) {
    const { client, session, provider: own } = ctx.oidc;
    const grant = new own.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid');
    grant.addResourceScope(told.audience, 'console');
    await grant.save();
    return grant;
  },
});
provider.listen(told.port, '127.0.0.1');
