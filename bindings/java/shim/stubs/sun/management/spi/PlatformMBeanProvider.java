package sun.management.spi;

import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The shape of the JDK's own class of this name, to compile {@code ManagementProvider} against.
 *
 * <p>It is not exported, so that {@code --release} hides it; and without {@code --release} a newer
 * compiler would let calls slip in that JDK 17 does not have. Left out of the jar.
 *
 * <p>JVM(since 9): module java.management, {@code sun.management.spi}; members as of {@code javap}
 * on 17.0.15 and 25.0.3.
 */
public abstract class PlatformMBeanProvider {
    /** A platform bean, or several of one kind. */
    public interface PlatformComponent<T> {
        /** Interfaces by which the bean can be asked for. */
        Set<Class<? extends T>> mbeanInterfaces();

        /** Their names. */
        Set<String> mbeanInterfaceNames();

        /** The beans by object name. */
        Map<String, T> nameToMBeanMap();

        /** Pattern of the object names. */
        String getObjectNamePattern();

        /** Whether there is one bean at most. */
        default boolean isSingleton() {
            return false;
        }
    }

    /** For subclasses. */
    protected PlatformMBeanProvider() {}

    /** What this provider has. */
    public abstract List<PlatformComponent<?>> getPlatformComponentList();
}
