package tubthumping.crac;

import java.lang.reflect.Field;
import java.net.InetAddress;
import java.util.Collection;
import java.util.Map;

/**
 * What the JDK remembers of host names: in another network they mean other addresses, also that
 * of this host.
 *
 * <p>JVM(since 17): the three fields of {@code InetAddress}; same names on 25.
 */
final class Addresses {
    private final Field cache = Internals.field(InetAddress.class, "cache");
    private final Field expirySet = Internals.field(InetAddress.class, "expirySet");
    private final Field cachedLocalHost = Internals.field(InetAddress.class, "cachedLocalHost");

    Addresses() throws ReflectiveOperationException {}

    /** Does all of it but the forgetting, so that what it takes is loaded. */
    void rehearse() throws Exception {
        if (Internals.isInUse(cache)) {
            cachedLocalHost.set(null, cachedLocalHost.get(null));
            ((Map<?, ?>) cache.get(null)).size();
            ((Collection<?>) expirySet.get(null)).size();
        }
    }

    void forget() throws Exception {
        if (!Internals.isInUse(cache)) {
            return;
        }
        cachedLocalHost.set(null, null);
        // In this order: a name that is in the set only does no harm.
        ((Map<?, ?>) cache.get(null)).clear();
        ((Collection<?>) expirySet.get(null)).clear();
    }
}
