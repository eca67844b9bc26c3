package tubthumping.crac;

import java.lang.management.ManagementFactory;
import java.lang.management.RuntimeMXBean;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;

/**
 * {@code RuntimeMXBean.getStartTime} and {@code getUptime}, which count from the restore in a copy.
 *
 * <p>JVM(since 17): {@code sun.management.RuntimeImpl} asks its field {@code jvm}, of an interface
 * type, for the one and keeps the other in {@code vmStartupTime}; same on 25.
 */
final class Uptime {
    private final RuntimeMXBean bean = ManagementFactory.getRuntimeMXBean();
    private final Field startTime = Internals.field(bean.getClass(), "vmStartupTime");
    private final Field jvm = Internals.field(bean.getClass(), "jvm");
    private final Object proxy;

    Uptime() throws ReflectiveOperationException {
        Class<?> type = jvm.getType();
        Object original = jvm.get(bean);
        proxy =
                Proxy.isProxyClass(original.getClass())
                        ? original
                        : Proxy.newProxyInstance(
                                type.getClassLoader(),
                                new Class<?>[] {type},
                                (self, method, arguments) -> answer(original, method, arguments));
    }

    private static Object answer(Object original, Method method, Object[] arguments)
            throws Exception {
        Management.RestoreTime restore = Management.RestoreTime.last;
        if (restore != null && method.getName().equals("getUptime")) {
            return restore.uptimeMillis();
        }
        return Internals.call(method, original, arguments);
    }

    /** Does all of it but the change, so that what it takes is loaded. */
    void rehearse() throws ReflectiveOperationException {
        jvm.set(bean, jvm.get(bean));
        startTime.setLong(bean, startTime.getLong(bean));
    }

    void restart(long unixMillis) throws ReflectiveOperationException {
        jvm.set(bean, proxy);
        startTime.setLong(bean, unixMillis);
    }
}
