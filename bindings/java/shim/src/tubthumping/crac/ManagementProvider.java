package tubthumping.crac;

import java.util.List;
import java.util.Map;
import java.util.Set;
import jdk.crac.management.CRaCMXBean;
import sun.management.spi.PlatformMBeanProvider;

/**
 * Makes the bean a platform bean. The JDK finds this class through {@code META-INF/services}; it
 * can be loaded because the agent exports {@code sun.management.spi} to us before main runs.
 */
public final class ManagementProvider extends PlatformMBeanProvider {
    /** For the service loader. */
    public ManagementProvider() {}

    @Override
    public List<PlatformComponent<?>> getPlatformComponentList() {
        return List.of(new Component());
    }

    private static final class Component implements PlatformComponent<CRaCMXBean> {
        private final CRaCMXBean bean = new Management();

        @Override
        public Set<Class<? extends CRaCMXBean>> mbeanInterfaces() {
            return Set.of(CRaCMXBean.class);
        }

        @Override
        public Set<String> mbeanInterfaceNames() {
            return Set.of(CRaCMXBean.class.getName());
        }

        @Override
        public Map<String, CRaCMXBean> nameToMBeanMap() {
            return Map.of(Management.NAME, bean);
        }

        @Override
        public String getObjectNamePattern() {
            return Management.NAME;
        }

        @Override
        public boolean isSingleton() {
            return true;
        }
    }
}
